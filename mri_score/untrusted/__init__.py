"""Files that others made: read in a separate process with limits on memory and time; text from them made harmless."""
