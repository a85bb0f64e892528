"""The memory that a run will take, and the memory that one took."""
