"""What fastdiv and its peers cost, measured alike: `python -m benchmarks`."""
