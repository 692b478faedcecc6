"""Intervals hold what they promise, and failing needs evidence."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dq_toolchain.toolchain.checks import (
    FAMILY_ALPHA,
    MINIMUM_SEEDS,
    MISS,
    MOST_SEEDS,
    Check,
    Decision,
    Interval,
    decide_all,
    first,
    first_not_finite,
    mean_interval,
    more_seeds_of,
    overall,
)

LIMITS = (-0.1, 0.1, -0.5, 0.5)


def draws(mean: float, spread: float, seeds: int, runs: int = 1) -> Tensor:
    """Values with exactly that mean and spread in every row: (runs, seeds)."""
    x = torch.randn(runs, seeds, dtype=torch.float64, generator=torch.Generator().manual_seed(seeds))
    return mean + spread * (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)


def test_the_interval_misses_the_true_mean_as_rarely_as_stated() -> None:
    values = torch.randn(4000, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wide = [mean_interval(row, tests=1) for row in values]
    misses = sum(not i.low <= 0 <= i.high for i in wide)
    assert misses <= 4000 * FAMILY_ALPHA * 3
    tight = [mean_interval(row + 1.0, tests=1) for row in values]
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


def test_the_minimum_is_the_fewest_seeds_at_which_a_device_worse_on_every_one_is_told_from_a_coin() -> None:
    assert 0.5**MINIMUM_SEEDS < FAMILY_ALPHA <= 0.5 ** (MINIMUM_SEEDS - 1)


@pytest.mark.parametrize(("mean", "spread", "seeds", "outcome"), [
    (0.0, 0.3, 16, "pass"),  # a gross value is far outside
    (0.05, 0.3, 4, "not decided"),  # 0.5 cannot be excluded
    (0.3, 0.01, 2, "not decided"),  # beyond the limit by more than chance, but two seeds do not prove it
    (0.3, 0.01, 16, "fail"), (-0.3, 0.01, 16, "fail"), (0.6, 5.0, 2, "fail"),
    (0.2, 0.15, 16, "not decided"), (math.nan, 0.1, 8, "fail"),
])  # fmt: skip
def test_an_interval_passes_fails_or_is_not_decided(mean: float, spread: float, seeds: int, outcome: str) -> None:
    decision = mean_interval(draws(mean, spread, seeds)[0], tests=1).decide(*LIMITS)
    assert decision.outcome == outcome
    assert (decision.more_seeds is not None) == (outcome == "not decided")


@pytest.mark.parametrize(("mean", "spread", "seeds"), [(0.05, 0.3, 4), (0.2, 0.15, 16), (0.3, 0.01, 2)])
def test_the_seeds_that_it_asks_for_decide(mean: float, spread: float, seeds: int) -> None:
    more = mean_interval(draws(mean, spread, seeds)[0], tests=1).decide(*LIMITS).more_seeds
    assert more is not None
    assert more >= 1
    decided = mean_interval(draws(mean, spread, seeds + more)[0], tests=1).decide(*LIMITS)
    assert decided.outcome != "not decided"


def test_one_seed_decides_nothing_but_gross_error() -> None:
    one = mean_interval(torch.tensor([0.0], dtype=torch.float64), 1)
    assert one.decide(*LIMITS) == Decision("not decided", MINIMUM_SEEDS - 1)
    assert Interval(0.7, -math.inf, math.inf).decide(*LIMITS) == Decision("fail")


def test_a_gross_fault_rarely_passes_and_a_good_device_rarely_fails() -> None:
    """1000 devices each, of which every seed is drawn: at the gross limit, and at the middle."""
    noise = torch.randn(1000, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    gross = [mean_interval(0.5 + 0.4 * row, 1).decide(*LIMITS).outcome for row in noise]
    good = [mean_interval(0.2 * row, 1).decide(*LIMITS).outcome for row in noise]
    assert gross.count("pass") <= MISS * 1000
    assert good.count("fail") <= 3
    assert good.count("pass") > 900


def test_what_no_seed_makes_smaller_ends_the_search() -> None:
    stuck = mean_interval(draws(0.2, 0.1, 16)[0], 1, least_error=0.3).decide(*LIMITS)
    assert stuck == Decision("not decided", MOST_SEEDS - 16)


def test_several_intervals_show_the_first_that_fails_then_the_one_that_needs_most() -> None:
    kinds = ((0.01, 0.1, 8), (0, 0.5, 4), (0, 0.9, 4), (0.3, 0.01, 8))
    good, wide, wider, bad = (mean_interval(draws(*kind)[0], 1) for kind in kinds)
    assert decide_all([good, wide, bad, bad], LIMITS) == (Decision("fail"), 2)
    decision, shown = decide_all([good, wide, wider], LIMITS)
    assert (decision.outcome, shown) == ("not decided", 2)
    assert decide_all([good, good], LIMITS) == (Decision("pass"), 0)


def test_failed_comes_before_not_decided_before_passed() -> None:
    passed, failed = Check("a.b", True, None, ""), Check("a.b", False, 3, "")
    few, many = (Decision("not decided", more).check("a.b", 3, "text") for more in (1, 7))
    assert [overall(checks) for checks in ([passed], [passed, few], [failed, few], [])] == [
        "pass",
        "not decided",
        "fail",
        "pass",
    ]
    assert (more_seeds_of([passed, few, many]), more_seeds_of([failed])) == (7, None)
    assert (few.detail, few.step, few.passed) == ("text; 1 more seed needed", None, False)
    assert few.to_json()["verdict"] == "not decided"
