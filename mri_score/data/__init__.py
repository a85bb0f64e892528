"""Data: files, masks, coil maps, noise, phantoms; data makes operators."""
