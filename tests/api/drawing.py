"""What the tests that draw pictures ask for, and how near two pictures are."""

from __future__ import annotations

from torch import Tensor

from dq_toolchain.toolchain.metrics import psnr

PROMPT, GUIDANCE = "a red fox", 2.0
NEAR = 30.0
"""dB between two pictures of the same seed and prompt; those of other seeds have less than half."""


def near(ours: Tensor, theirs: Tensor) -> float:
    """PSNR of two pictures of pixels."""
    return float(psnr(ours.float()[None] / 127.5 - 1, theirs.float()[None] / 127.5 - 1))
