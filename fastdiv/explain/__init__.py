"""From tables to reasons: why loss and accuracy moved as they did."""
