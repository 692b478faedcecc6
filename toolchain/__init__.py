"""Shared vocabulary, file formats, verdicts and the command line."""
