"""Bits per layer within a budget, by sensitivity through the whole sampler."""
