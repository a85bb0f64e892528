"""Forward operators: linear maps with their adjoints, tested against SigPy."""
