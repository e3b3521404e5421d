"""From the outputs of one pass to translations."""
