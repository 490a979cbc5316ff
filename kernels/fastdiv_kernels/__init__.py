"""Kernels of fastdiv: arrays in, arrays out; nothing here knows of files, epochs' names or runs."""
