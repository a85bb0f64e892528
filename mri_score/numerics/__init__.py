"""Numerics that know neither MRI nor diffusion: channels, Fourier, noise, solvers, divergence."""
