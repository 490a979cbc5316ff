"""Imbalance, classification reports, confusions."""
