"""The recipe: its sections, how a file and flags become one, the budget's grammar."""
