"""Reads written graphs back: what the compiler takes, and every number of the artifact."""
