"""Parquet pages read without decoding levels: values used where they lie, or decompressed."""
