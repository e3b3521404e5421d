"""From a checkpoint back to a Hugging Face folder."""
