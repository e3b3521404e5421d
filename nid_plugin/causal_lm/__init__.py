"""Causal language models of transformers: where they come from, LoRA, packed attention and the loss; no fairseq."""
