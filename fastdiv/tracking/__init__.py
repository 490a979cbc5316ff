"""Epochs analyzed inside a job: `tracker` is what users see, `tracked` what it holds."""
