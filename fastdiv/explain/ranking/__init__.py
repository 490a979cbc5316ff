"""ROC, precision and recall, thresholds."""
