"""Intervals hold what they promise, and failing needs evidence."""

from __future__ import annotations

import math

import torch

from dq_toolchain.toolchain.checks import FAMILY_ALPHA, Interval, first, first_not_finite, mean_interval


def test_the_interval_misses_the_true_mean_as_rarely_as_stated() -> None:
    draws = torch.randn(4000, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wide = [mean_interval(row, tests=1) for row in draws]
    misses = sum(not i.low <= 0 <= i.high for i in wide)
    assert misses <= 4000 * FAMILY_ALPHA * 3
    tight = [mean_interval(row + 1.0, tests=1) for row in draws]
    assert all(math.isclose(a.low + 1, b.low, abs_tol=1e-9) for a, b in zip(wide, tight, strict=True))


def test_more_tests_and_a_shared_error_widen_it_and_one_value_says_nothing() -> None:
    values = torch.tensor([0.9, 1.0, 1.1, 1.2], dtype=torch.float64)
    one, many, shared = mean_interval(values, 1), mean_interval(values, 20), mean_interval(values, 1, least_error=1.0)
    assert one.high - one.low < many.high - many.low < shared.high - shared.low
    assert mean_interval(values[:1], 1) == Interval(0.9, -math.inf, math.inf)


def test_outside_needs_the_whole_interval_or_a_gross_estimate() -> None:
    assert not Interval(1.3, 1.05, 1.6).outside(0.9, 1.1, 0.5, 1.5)
    assert Interval(1.3, 1.15, 1.6).outside(0.9, 1.1, 0.5, 1.5)
    assert Interval(0.6, 0.5, 0.8).outside(0.9, 1.1, 0.5, 1.5)
    assert Interval(1.6, -math.inf, math.inf).outside(0.9, 1.1, 0.5, 1.5)
    assert Interval(math.nan, math.nan, math.nan).outside(0.9, 1.1, 0.5, 1.5)


def test_first_finds_the_first() -> None:
    assert first([False, True, True]) == 1
    assert first([False]) is None
    x = torch.zeros(4, 2, 3)
    assert first_not_finite(x) is None
    x[2, 1, 0] = -math.inf
    assert first_not_finite(x) == 2
