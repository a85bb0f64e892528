"""Reconstruction of a file: from k-space to written results."""
