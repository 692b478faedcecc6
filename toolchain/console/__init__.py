"""What the user sees: progress, warnings, foreign text made printable, the terminal's width."""
