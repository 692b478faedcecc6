"""Makes the program: Q/DQ in front of every product and behind it."""
