"""The work behind the commands: what each does with its options."""
