"""How the program is executed on the host."""
