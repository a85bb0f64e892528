"""Training items, made from images or scans."""
