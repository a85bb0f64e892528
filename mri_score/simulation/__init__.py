"""Scans made up: the numerical phantom, and images with phase and coils of a real scan."""
