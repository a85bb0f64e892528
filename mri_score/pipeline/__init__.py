"""A file from k-space to written results."""
