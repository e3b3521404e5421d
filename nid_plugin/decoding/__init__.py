"""Generation of completions."""
