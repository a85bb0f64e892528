"""Training: batches by step, one readable loop, an average of the weights, checkpoints that lose nothing."""
