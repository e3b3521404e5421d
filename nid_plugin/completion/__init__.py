"""Ask a teacher LLM for the second halves of documents, so that nothing is paid for twice or lost."""
