"""RMS norms whose squares fp16 holds: each row is divided by its largest number first.

T5's hidden states reach thousands; their squares are beyond fp16, and what they enter becomes 0. Divided by the largest of a
row, squares are at most 1 and their mean is at least 1 / W.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dq_toolchain.toolchain.parts.t5 import RmsNorm

SMALLEST = 2.0**-10
"""What a row is divided by at least: below it, ``epsilon`` decides."""


class ScaledRmsNorm(nn.Module):
    """The function of ``RmsNorm``: (..., W) -> (..., W), in operations that stay inside fp16 wherever x does."""

    def __init__(self, norm: RmsNorm) -> None:
        super().__init__()
        self.weight, self.root = norm.weight, math.sqrt(norm.epsilon)

    def forward(self, x: Tensor) -> Tensor:
        largest = x.abs().amax(-1, keepdim=True).clamp_min(SMALLEST)
        scaled, root = x / largest, self.root / largest
        return self.weight * (scaled * torch.rsqrt((scaled * scaled).mean(-1, keepdim=True) + root * root))


def scale_norms(module: nn.Module) -> nn.Module:
    """Put ``ScaledRmsNorm`` in the place of every ``RmsNorm``, in place."""
    for name, norm in [(name, each) for name, each in module.named_modules() if isinstance(each, RmsNorm)]:
        module.set_submodule(name, ScaledRmsNorm(norm))
    return module
