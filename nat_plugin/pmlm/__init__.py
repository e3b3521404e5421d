"""Pretrained multilingual LMs: prune, reorder, tokenise."""
