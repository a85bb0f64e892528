"""Samples of a prior judged against real images."""
