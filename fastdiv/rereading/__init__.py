"""Reading the predictions of one epoch again: what no stored score tells."""
