"""Executes graphs on the host."""
