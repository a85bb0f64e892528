"""Priors on disk: safetensors with a JSON beside them, bundled ones included."""
