"""One judged property of a device, and the statistics that fidelity and conformance share.

A check has three outcomes. It *fails* when a correct device would look like that with less than FAMILY_ALPHA, or when its
estimate is grossly out. It *passes* when a grossly wrong device would look like that with less than MISS and nothing
suspicious is left. Between the two it is *not decided*, and says how many further seeds would decide it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from dq_toolchain.toolchain.chances import student_quantiles

if TYPE_CHECKING:
    from torch import Tensor

Outcome = Literal["pass", "fail", "not decided"]
EXIT_CODES: dict[Outcome, int] = {"pass": 0, "fail": 1, "not decided": 3}

FAMILY_ALPHA = 1e-3
"""Chance that one kind of check fails a correct device in one run, shared out over its steps (Bonferroni)."""
MISS = 0.05
"""Chance that a gross fault goes unseen by a check that is passed; of what is less likely than this on a correct device, a
check says "not decided"."""
MINIMUM_SEEDS = math.ceil(-math.log2(FAMILY_ALPHA))
"""Below so many seeds no verdict is pass: a device that is worse than the simulation on every seed has a chance of 2^-seeds
under a fair coin (the sign test, which supposes nothing of how errors are spread), and only from here on is that below
FAMILY_ALPHA."""
MOST_SEEDS = 4096
"""As many held-out seeds as a recipe takes; no check asks for more."""


@dataclass(frozen=True)
class Check:
    """``name`` is stable (tests and machines rely on it); ``step`` is the first step that fails, None without one.

    ``passed`` is False of a check that is not decided; ``more_seeds`` is how many further seeds it needs, None of one that
    passed or failed.
    """

    name: str
    passed: bool
    step: int | None
    detail: str
    more_seeds: int | None = None

    @property
    def outcome(self) -> Outcome:
        if self.passed:
            return "pass"
        return "fail" if self.more_seeds is None else "not decided"

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"verdict": self.outcome}


def outcome_of(outcomes: Sequence[Outcome]) -> Outcome:
    """Of several: any failed is fail, else any not decided is not decided."""
    ranked: tuple[Outcome, ...] = ("fail", "not decided")
    return next((each for each in ranked if each in outcomes), "pass")


def overall(checks: Sequence[Check]) -> Outcome:
    """The outcome of several checks together."""
    return outcome_of([check.outcome for check in checks])


def more_seeds_of(checks: Sequence[Check]) -> int | None:
    """Further seeds after which every check of ``checks`` is decided; None if all are."""
    return max((check.more_seeds for check in checks if check.more_seeds is not None), default=None)


@dataclass(frozen=True)
class Decision:
    """What a check's figures say: its outcome, and how many further seeds it needs if that is "not decided"."""

    outcome: Outcome
    more_seeds: int | None = None

    def check(self, name: str, step: int | None, detail: str) -> Check:
        """The check; ``step`` counts only where it failed."""
        if self.outcome == "not decided":
            return Check(name, False, None, f"{detail}; {seeds_text(self.more_seeds or 1)} needed", self.more_seeds)
        return Check(name, self.outcome == "pass", step if self.outcome == "fail" else None, detail)


def seeds_text(more: int) -> str:
    """ "3 more seeds"."""
    return f"{more} more seed{'' if more == 1 else 's'}"


@dataclass(frozen=True)
class Interval:
    """Mean over the seeds with a two-sided interval; ``low`` and ``high`` may be infinite (one seed).

    Attributes:
        spread: standard deviation over the seeds. seeds: how many. tests: intervals of this kind looked at together.
        least_error: lower bound of the mean's standard error, which no further seed makes smaller.
    """

    estimate: float
    low: float
    high: float
    spread: float = math.inf
    seeds: int = 1
    tests: int = 1
    least_error: float = 0.0

    def outside(self, low: float, high: float, gross_low: float, gross_high: float) -> bool:
        """Whether it lies wholly outside [low, high], or its estimate outside [gross_low, gross_high]."""
        return self.high < low or self.low > high or not gross_low <= self.estimate <= gross_high

    def half(self, level: float) -> float:
        """Half the width of the mean's interval at another level."""
        return _halves(self, level, self.seeds)[0] if self.seeds > 1 else math.inf

    def decide(self, low: float, high: float, gross_low: float, gross_high: float) -> Decision:
        """Fail: ``outside``. Not decided: a gross value cannot be excluded at MISS, or the estimate lies outside [low, high]
        by more than chance explains at MISS / tests. Else pass."""
        if self.outside(low, high, gross_low, gross_high):
            return Decision("fail")
        if self.seeds < 2:
            return Decision("not decided", MINIMUM_SEEDS - self.seeds)
        beyond = max(low - self.estimate, self.estimate - high)
        if beyond > self.half(MISS / self.tests):
            tolerance = (high - low) / 2 if math.isfinite(low) else abs(high)
            return Decision("not decided", self._further(max(beyond, tolerance), FAMILY_ALPHA / self.tests))
        room = min(gross_high - self.estimate, self.estimate - gross_low)
        if self.half(MISS) > room:
            between = (
                gross_high - high
            )  # with an estimate near the gross limit, further seeds tell it from the allowed ones
            return Decision("not decided", self._further(max(room, between), MISS))
        return Decision("pass")

    def _further(self, half: float, level: float) -> int:
        """Seeds to add until the interval at ``level`` is narrower than ``half``, at the spread seen so far; at least one."""
        halves = _halves(self, level, self.seeds + 1, MOST_SEEDS)
        enough = first([wide < half for wide in halves])
        return max(MOST_SEEDS - self.seeds, 1) if enough is None else enough + 1


def _halves(interval: Interval, level: float, first: int, last: int | None = None) -> list[float]:
    """Half widths at ``first``, ..., ``last`` seeds."""
    counts = range(first, (first if last is None else max(last, first)) + 1)
    quantiles = student_quantiles(1 - level / 2, [count - 1 for count in counts])
    return [
        quantile * max(interval.spread / math.sqrt(count), interval.least_error)
        for quantile, count in zip(quantiles, counts, strict=True)
    ]


def decide_all(intervals: Sequence[Interval], limits: tuple[float, float, float, float]) -> tuple[Decision, int]:
    """The decision on several intervals with the same limits (see ``Interval.decide``), and the index of the one to show.

    That is the first that fails; else the one that needs most further seeds; else the one farthest from the middle.
    """
    found = [interval.decide(*limits) for interval in intervals]
    outcome = outcome_of([each.outcome for each in found])
    if outcome == "fail":
        return Decision("fail"), next(i for i, each in enumerate(found) if each.outcome == "fail")
    if outcome == "not decided":
        most = max(range(len(found)), key=lambda i: (found[i].more_seeds or 0, abs(intervals[i].estimate)))
        return found[most], most
    return Decision("pass"), max(range(len(intervals)), key=lambda i: abs(intervals[i].estimate))


def mean_interval(values: Tensor, tests: int, least_error: float = 0.0) -> Interval:
    """Mean with Student's t interval at level FAMILY_ALPHA / tests.

    Args:
        values: (S,) float64, independent.
        tests: how many intervals of this kind are looked at together.
        least_error: lower bound of the standard error, for what the S values have in common.
    """
    count, mean = len(values), float(values.mean())
    if count < 2:
        return Interval(mean, -math.inf, math.inf)
    alone = Interval(mean, mean, mean, float(values.std()), count, tests, least_error)
    half = alone.half(FAMILY_ALPHA / tests)
    return Interval(mean, mean - half, mean + half, alone.spread, count, tests, least_error)


def more_needed(decided: Callable[[int], bool], seeds: int) -> int:
    """Further seeds after which ``decided(seeds in all)`` holds, at least one and at most up to MOST_SEEDS."""
    found = next((count for count in range(seeds + 1, MOST_SEEDS + 1) if decided(count)), MOST_SEEDS)
    return max(found - seeds, 1)


WIDE = 1000.0


def readable(value: float, form: str) -> str:
    """A figure in ``form``; from WIDE on with an exponent, as intervals over two seeds are as good as infinite."""
    return format(value, form) if abs(value) < WIDE else f"{value:.0e}"


def first_not_finite(tensor: Tensor) -> int | None:
    """First index of axis 0 with NaN or infinity; None if all is finite."""
    bad = (~tensor.flatten(1).isfinite()).any(1).nonzero()
    return int(bad[0]) if len(bad) else None


def first(flags: list[bool]) -> int | None:
    """Index of the first True."""
    return flags.index(True) if True in flags else None
