"""Corpora: read, clean, split."""
