"""Numerics that depend on neither MRI nor diffusion: channels, Fourier, noise, solvers, divergence."""
