"""The causes of a change in loss, each with its share."""
