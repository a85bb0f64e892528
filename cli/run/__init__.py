"""The work of the longer commands, with typed options."""
