"""Simulated scans: of a numerical head, and of given images with phase and coil maps of a real scan."""
