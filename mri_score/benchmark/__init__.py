"""Comparison of methods, cell by cell, and its tables."""
