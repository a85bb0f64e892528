"""Reconstruction at the scanner: MRD streams in, images with their uncertainty out, slice by slice."""
