"""Answers to MT-Bench and Arena-Hard, and a judge's scores, in the files that those benchmarks' own programs read."""
