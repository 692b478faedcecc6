"""What mixed precision may cost: ``size=0.2,psnr>=30``."""

from __future__ import annotations

import re
from dataclasses import dataclass

FORM = re.compile(r"(size|psnr)\s*(<=|>=|=)\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)")
SIGNS = {"size": ("=", "<="), "psnr": (">=",)}
ALLOWED = (
    "allowed are size=SHARE (of the FP32 weights, above 0 and at most 1), psnr>=DECIBELS, or both joined by a comma"
)


@dataclass(frozen=True)
class Budget:
    """Bounds on a choice of bits, None where there is none.

    Attributes:
        size: bits of all weights of Conv2d and Linear layers, at most this share of what they take in 32 bits.
        psnr: median PSNR of samples against FP32, dB, at least.
    """

    size: float | None = None
    psnr: float | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Raises ValueError: not of the form above."""
        bounds: dict[str, float] = {}
        for part in text.split(","):
            match = FORM.fullmatch(part.strip())
            if match is None or match[2] not in SIGNS[match[1]] or match[1] in bounds:
                raise ValueError(f"{part.strip()!r} is no bound, or is there twice; {ALLOWED}")
            bounds[match[1]] = float(match[3])
        if not 0 < bounds.get("size", 1.0) <= 1:
            raise ValueError(f"size is {bounds['size']:g}; {ALLOWED}")
        return cls(**bounds)
