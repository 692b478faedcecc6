"""Quantization itself: qparams, sites, and the exact rewrites of a network that precede it."""
