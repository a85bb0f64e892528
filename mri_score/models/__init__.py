"""Score models: the law of images at every noise level."""
