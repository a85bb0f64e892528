"""Training: batches, loop, weight averages, checkpoints, validation, figures."""
