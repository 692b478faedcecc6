"""Device against integer simulation: does the runtime compute what was calibrated? Second of the two verdicts.

Judged per step, teacher-forced (the device is fed the simulation's latents), so that the first failing step is the one
at fault; the device's own rollout is compared as well, because only there the sampler takes part.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dq_toolchain.toolchain.chances import beta_binomial_at_most
from dq_toolchain.toolchain.checks import (
    FAMILY_ALPHA,
    MINIMUM_SEEDS,
    MISS,
    Check,
    Decision,
    Interval,
    decide_all,
    first,
    first_not_finite,
    mean_interval,
    more_needed,
    readable,
)
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.metrics import median, relative_error, rollout_error
from dq_toolchain.toolchain.verdict.limits import arithmetic_room

if TYPE_CHECKING:
    from torch import Tensor

START_TOLERANCE = 1e-5
TINY = 1e-12  # of the output's own size: below it an error counts as none
FLIP_RATE = 1.2
"""A correct device may flip 1.2 times as often as the twin. It flips less: the twin sums products in float32, a device in
integers (measured: XNNPACK on x86 0.5-0.7 times). Flips are rare and independent (Poisson), so the share of seeds
without any is then the twin's to this power."""
LIKELY = 0.05
"""Once damage is proven, step groups before it count as damaged too when a correct device so rarely looks like them."""


@dataclass(frozen=True)
class TeacherForced:
    """Outputs at the simulation's latents, each (N, S) float64.

    With e = f - f_fp32 at the same latent and d = f_device - f_simulation:

    Attributes:
        log_ratio: ln(||e_device|| / ||e_simulation||).
        bias: mean of d over the elements / root mean square of e_simulation.
        difference: ||d|| / ||e_simulation||.

    Where limits leave room for the target's float arithmetic, b = arithmetic * ||f_fp32||, the size of the error to expect lies
    between ||e_simulation|| and sqrt(||e_simulation||^2 + b^2): the ratio is 1 in between, and else that to the nearer of the two;
    bias and difference are shares of the larger one.
    """

    log_ratio: Tensor
    bias: Tensor
    difference: Tensor


def teacher_forced(outputs: Tensor, reference: Reference, arithmetic: float = 0.0) -> TeacherForced:
    """Compare device outputs (N, S, C, H, W) float32 with the simulation's at the simulation's latents.

    Args:
        arithmetic: see ``limits_for``.
    """
    fp32 = reference.fp32_outputs_at_simulation.double().flatten(2)
    device, simulation = (x.double().flatten(2) - fp32 for x in (outputs, reference.simulation_outputs))
    least = (TINY * fp32.norm(dim=2)).clamp_min(sys.float_info.min)
    size = simulation.norm(dim=2).maximum(least)
    most = (size.square() + (arithmetic * fp32.norm(dim=2)).square()).sqrt()
    apart = device - simulation
    return TeacherForced(
        _beyond((device.norm(dim=2).maximum(least) / size).log(), (most / size).log()),
        apart.mean(2) * math.sqrt(apart.shape[2]) / most,
        apart.norm(dim=2) / most,
    )


def _beyond(log_ratio: Tensor, room: Tensor) -> Tensor:
    """What is left of a ratio's logarithm beyond 0 to ``room``."""
    return log_ratio.clamp_max(0) + (log_ratio - room).clamp_min(0)


def conformance(
    latents: Tensor,
    outputs: Tensor,
    reference: Reference,
    step_groups: Sequence[Sequence[int]],
    limits: Mapping[str, Any],
) -> tuple[Check, ...]:
    """The checks conformance.finite, .start, .ratio, .step_groups, .run, .bias, .difference, .agreement,
    .exact and .rollout.

    Args:
        latents: (N+1, S, C, H, W) float32, the device's own rollout.
        outputs: (N, S, C, H, W) float32, the device's outputs at the simulation's latents.
        limits: the part "conformance" of a bundle's limits.
    """
    bad = [k for k in (first_not_finite(outputs), first_not_finite(latents[1:])) if k is not None]
    if bad or first_not_finite(latents) == 0:
        step = min(bad, default=0)
        text = f"outputs or latents hold NaN or infinity from step {step} on"
        return (Check("conformance.finite", False, step, text),)
    arithmetic = limits.get("arithmetic", 0.0)
    figures = teacher_forced(outputs, reference, arithmetic)
    return (
        Check("conformance.finite", True, None, "all outputs are finite"),
        _start(latents, reference),
        _ratio(
            "conformance.ratio",
            step_intervals(figures.log_ratio),
            limits["ratio_step"],
            limits["ratio_gross"],
            "error size at step {step}",
        ),
        _step_groups(figures, step_groups, limits),
        _run(figures, limits),
        _bias(figures, limits),
        *_difference(figures, limits),
        *_exact(figures, step_groups, limits["exact"]),
        _ratio(
            "conformance.rollout",
            step_intervals(_rollout_ratio(latents, reference, arithmetic)),
            limits["rollout_ratio"],
            limits["rollout_gross"],
            "error of the own rollout after step {step}",
        ),
    )


def step_intervals(values: Tensor) -> list[Interval]:
    """Mean over the seeds with its interval, for every step: (N, S) float64."""
    return [mean_interval(row, tests=len(values)) for row in values]


def _start(latents: Tensor, reference: Reference) -> Check:
    apart = float(relative_error(latents[0], reference.start).max())
    good = apart <= START_TOLERANCE
    return Check(
        "conformance.start",
        good,
        None if good else 0,
        f"start latents differ from the bundle's by {apart:.2g}, allowed {START_TOLERANCE:g}",
    )


def _ratio(
    name: str, intervals: Sequence[Interval], limit: float, gross: float, what: str, steps: Sequence[int] | None = None
) -> Check:
    edge, far = math.log(limit), math.log(gross)
    decision, shown = decide_all(intervals, (-edge, edge, -far, far))
    step = shown if steps is None else steps[shown]
    low, middle, high = (_exp(v) for v in (intervals[shown].low, intervals[shown].estimate, intervals[shown].high))
    return decision.check(
        name,
        step,
        f"{what.format(step=step)}: {readable(middle, '.3f')} times the simulation's (interval {readable(low, '.3f')} "
        f"to {readable(high, '.3f')}), allowed {1 / limit:.3f} to {limit:.3f}",
    )


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))


def _step_groups(figures: TeacherForced, step_groups: Sequence[Sequence[int]], limits: Mapping[str, Any]) -> Check:
    intervals = [mean_interval(figures.log_ratio[list(steps)].mean(0), tests=len(step_groups)) for steps in step_groups]
    return _ratio(
        "conformance.step_groups",
        intervals,
        limits["ratio_step_group"],
        limits["ratio_gross"],
        "error size over the step group from step {step} on",
        [steps[0] for steps in step_groups],
    )


def _run(figures: TeacherForced, limits: Mapping[str, Any]) -> Check:
    by_step = figures.log_ratio.mean(1)
    several = len(by_step) > 1  # one step has no others to average over: it may depart as far as any step
    shared = float(by_step.std()) / math.sqrt(len(by_step)) if several else 0.0
    interval = mean_interval(figures.log_ratio.mean(0), 1, least_error=shared)
    return _ratio(
        "conformance.run",
        [interval],
        limits["ratio_run" if several else "ratio_step"],
        limits["ratio_gross"],
        "error size over all steps",
    )


def _bias(figures: TeacherForced, limits: Mapping[str, Any]) -> Check:
    edge, far = limits["bias"], limits["bias_gross"]
    intervals = step_intervals(figures.bias)
    decision, shown = decide_all(intervals, (-edge, edge, -far, far))
    at = intervals[shown]
    return decision.check(
        "conformance.bias",
        shown,
        f"bias at step {shown}: {at.estimate:+.3f} of the error (interval {readable(at.low, '+.3f')} to "
        f"{readable(at.high, '+.3f')}), allowed {edge:g}",
    )


def _difference(figures: TeacherForced, limits: Mapping[str, Any]) -> tuple[Check, Check]:
    """Medians have no interval here: with fewer than MINIMUM_SEEDS seeds one that is too large is not decided."""
    seeds = figures.difference.shape[1]

    def decision(good: bool) -> Decision:
        enough = good or seeds >= MINIMUM_SEEDS
        return Decision("pass" if good else "fail") if enough else Decision("not decided", MINIMUM_SEEDS - seeds)

    middle = [float(v) for v in median(figures.difference)]
    failed = first([v > limits["difference"] for v in middle])
    shown = max(range(len(middle)), key=lambda k: middle[k]) if failed is None else failed
    over_all = float(median(figures.difference.flatten()))
    return (
        decision(failed is None).check(
            "conformance.difference",
            failed,
            f"device and simulation at step {shown} differ by {middle[shown]:.3f} of the error, "
            f"allowed {limits['difference']:g}",
        ),
        decision(over_all <= limits["difference_run"]).check(
            "conformance.agreement",
            0,
            f"device and simulation over all steps differ by {over_all:.3f} of the error, allowed "
            f"{limits['difference_run']:g} (programs whose errors have nothing in common: 1.41)",
        ),
    )


def _exact(
    figures: TeacherForced, step_groups: Sequence[Sequence[int]], limits: Mapping[str, Any] | None
) -> tuple[Check, ...]:
    """Scan of all runs of step groups for one with too few seeds and steps free of flips; absent without a twin.

    Of the runs that fail the shortest counts, and of those the earliest: longer ones fail because they contain it. The
    first step is that of the unbroken row of suspicious step groups that ends there.
    """
    if limits is None:
        return ()
    seeds = figures.difference.shape[1]
    hits = (figures.difference < limits["difference"]).sum(1)
    share = figures.difference.new_tensor(limits["share"]) ** FLIP_RATE

    def chance(run: Sequence[int], in_all: int = seeds, found: float | None = None) -> float:
        """Of a correct device to have so few hits: those seen, at ``in_all`` seeds as many times more, or ``found``."""
        count, expected = in_all * len(run), float(share[run].mean())
        number = int(hits[run].sum()) * in_all / seeds if found is None else found
        prior = 0.5  # the share was itself measured on so many runs: all of four exact does not promise all of four
        return beta_binomial_at_most(int(number), count, count * expected + prior, count * (1 - expected) + prior)

    runs = [list(range(a[0], b[-1] + 1)) for i, a in enumerate(step_groups) for b in step_groups[i:]]
    level = FAMILY_ALPHA / len(runs)
    failing = [run for run in runs if chance(run) < level]
    run = min(failing, key=lambda run: (len(run), run), default=min(runs, key=chance))
    for steps in reversed([list(steps) for steps in step_groups if failing and steps[-1] < run[0]]):
        if chance(steps) >= LIKELY:
            break
        run = steps + run
    decision = Decision("fail" if failing else "pass")
    if not failing and chance(run) < MISS / len(runs):
        decision = Decision("not decided", more_needed(lambda count: chance(run, count) < level, seeds))
    rate, expected = float(hits[run].sum()) / (seeds * len(run)), float(share[run].mean())
    blind = "" if any(chance(each, found=0) < level for each in runs) else "; too few to find damage by"
    return (
        decision.check(
            "conformance.exact",
            run[0],
            f"free of rounding flips in steps {run[0]}-{run[-1]}: {rate:.1%} of seeds and steps, a correct "
            f"device has at least about {expected:.1%} (chance {chance(run):.1g}){blind}",
        ),
    )


def _rollout_ratio(latents: Tensor, reference: Reference, arithmetic: float) -> Tensor:
    device = rollout_error(latents, reference.fp32_latents)
    simulation = rollout_error(reference.expected_latents, reference.fp32_latents)
    ratio = (device.clamp_min(TINY) / simulation.clamp_min(TINY)).log()
    return _beyond(ratio, arithmetic_room(reference, arithmetic).log()[:, None])
