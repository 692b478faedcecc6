"""The integer simulation of an artifact."""
