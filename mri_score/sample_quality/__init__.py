"""Evaluation of samples of a prior against real images."""
