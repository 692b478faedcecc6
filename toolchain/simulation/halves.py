"""Exact products of 16-bit integers by two float32 products of their halves: half the time of one in float64 on a CPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

HALF = 256
"""q = HALF * high + low, both halves in -128..128."""
EXACT = 2**24
"""Up to this magnitude float32 holds every integer, so that sums are exact in any order."""


def fits(bound: float) -> bool:
    """Whether sums of either half are exact in float32; ``bound``: of sums of the whole, for integers of up to 2^15."""
    return bound / HALF <= EXACT


def sums_in_halves(product: Callable[[Tensor], Tensor], q: Tensor) -> Tensor:
    """``product`` of q, float64, exact: it is linear, and its sums of halves are exact in float32.

    Args:
        q: float32 that holds integers from -2^15 to 2^15.
    """
    high = (q / HALF).round_()
    return product(high).to(torch.float64).mul_(HALF).add_(product(q - high * HALF))
