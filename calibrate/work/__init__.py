"""Checkpoints, and several processes that share the samples."""
