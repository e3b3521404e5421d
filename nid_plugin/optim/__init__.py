"""Optimizers for fairseq."""
