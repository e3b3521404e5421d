"""Controls: the document's own second half as response, nested subsets, two teachers on the same prompts."""
