"""fairseq architectures."""
