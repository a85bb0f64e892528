"""Memory of a run: prediction and measurement."""
