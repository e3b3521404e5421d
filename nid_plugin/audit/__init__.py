"""Look at pairs before they are trained on: what in them is instruction or conversation, duplicate, copied or known."""
