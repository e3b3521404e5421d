"""Non-instructional fine-tuning: text completions from a teacher LLM, and causal LMs fine-tuned on them.

Importing the package loads nothing heavy: the command ``nid`` runs without torch and fairseq.
"""
