"""How the program is made."""
