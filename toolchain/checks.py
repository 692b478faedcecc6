"""One judged property of a device, and the statistics that fidelity and conformance share.

A property with an interval fails only when the whole interval over the seeds lies outside what is allowed, so that
chance does not fail a correct device; an estimate beyond the gross limit fails however few the seeds are.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

FAMILY_ALPHA = 1e-3
"""Chance that one kind of check fails a correct device in one run, shared out over its steps (Bonferroni)."""


@dataclass(frozen=True)
class Check:
    """``name`` is stable (tests and machines rely on it); ``step`` is the first step that fails, None without one."""

    name: str
    passed: bool
    step: int | None
    detail: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Interval:
    """Estimate with a two-sided interval; ``low`` and ``high`` may be infinite (one seed)."""

    estimate: float
    low: float
    high: float

    def outside(self, low: float, high: float, gross_low: float, gross_high: float) -> bool:
        """Whether it lies wholly outside [low, high], or its estimate outside [gross_low, gross_high]."""
        return self.high < low or self.low > high or not gross_low <= self.estimate <= gross_high


def mean_interval(values: Tensor, tests: int, least_error: float = 0.0) -> Interval:
    """Mean with Student's t interval at level FAMILY_ALPHA / tests.

    Args:
        values: (S,) float64, independent.
        tests: how many intervals of this kind are looked at together.
        least_error: lower bound of the standard error, for what the S values have in common.
    """
    from scipy.stats import t as student  # takes a moment; only judging needs it

    count, mean = len(values), float(values.mean())
    if count < 2:
        return Interval(mean, -math.inf, math.inf)
    error = max(float(values.std()) / math.sqrt(count), least_error)
    half = float(student.ppf(1 - FAMILY_ALPHA / (2 * tests), count - 1)) * error
    return Interval(mean, mean - half, mean + half)


WIDE = 1000.0


def readable(value: float, form: str) -> str:
    """A figure in ``form``; from WIDE on with an exponent, as intervals over two seeds are as good as infinite."""
    return format(value, form) if abs(value) < WIDE else f"{value:.0e}"


def first_not_finite(tensor: Tensor) -> int | None:
    """First index of axis 0 with NaN or infinity; None if all is finite."""
    bad = (~torch.isfinite(tensor.flatten(1))).any(1).nonzero()
    return int(bad[0]) if len(bad) else None


def first(flags: list[bool]) -> int | None:
    """Index of the first True."""
    return flags.index(True) if True in flags else None
