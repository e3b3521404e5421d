"""Figures: training curves and alignments. Drawing needs matplotlib, which is imported only then."""
