"""Settings of runs: with their defaults and sources, as a JSON Schema, and compared with those of another run."""
