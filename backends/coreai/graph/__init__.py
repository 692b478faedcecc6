"""Makes the program."""
