"""Seeds of random draws, derived from what is drawn for; the same on every machine."""

from __future__ import annotations


def hash_seed(*parts: int) -> int:
    """A well-mixed 63-bit seed from small integers; the same on every machine."""
    value = 0x9E3779B97F4A7C15
    for part in parts:
        value = ((value ^ (part + 0x7F4A7C15)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        value ^= value >> 31
    return value & (2**63 - 1)
