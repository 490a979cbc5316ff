"""What became of samples, and of training beside validation, over the epochs."""
