"""What is more than chance."""
