"""Device against FP32: is the picture right? First of the two verdicts.

Everything is judged on the device's own rollout, with the limits that export derived (``limits``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dq_toolchain.toolchain.chances import binomial_at_least
from dq_toolchain.toolchain.checks import (
    FAMILY_ALPHA,
    MINIMUM_SEEDS,
    MISS,
    Check,
    Decision,
    first,
    first_not_finite,
    mean_interval,
    more_needed,
    outcome_of,
    readable,
)
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.metrics import median, psnr, rollout_error

if TYPE_CHECKING:
    from torch import Tensor

NAMED = 3
"""Seeds below the floor that a line names."""
COLLAPSE_DB = 12.0
"""A seed has collapsed when it is below the floor and so much below the simulation's same seed: an error four times as large.
Rounding flips move a seed of a sensitive network by 5 dB (embedded model: 24.0 to 18.4), hardly ever by so much."""
COLLAPSE_RATE = 1e-3
"""Share of its seeds that a correct device may lose in this way."""


def fidelity(latents: Tensor, reference: Reference, limits: Mapping[str, Any]) -> tuple[Check, ...]:
    """The checks fidelity.finite, .error, .psnr, .floor and .share.

    Args:
        latents: (N+1, S, C, H, W) float32, the device's own rollout.
        limits: the part "fidelity" of ``limits_for``.
    """
    bad = first_not_finite(latents)
    if bad is not None:
        step = max(bad - 1, 0)
        return (Check("fidelity.finite", False, step, f"the latents hold NaN or infinity from step {step} on"),)
    errors = [float(v) for v in median(rollout_error(latents, reference.fp32_latents))]
    allowed = [float(v) for v in limits["error"]]
    above = first([got > limit for got, limit in zip(errors, allowed, strict=True)])
    worst = max(range(len(errors)), key=lambda k: errors[k] / max(allowed[k], 1e-300)) if above is None else above
    final = psnr(latents[-1], reference.fp32_latents[-1])
    wanted = final.new_tensor(limits["simulation_psnr"])
    last = len(errors) - 1
    return (
        Check("fidelity.finite", True, None, "all latents are finite"),
        Check(
            "fidelity.error",
            above is None,
            above,
            f"relative error of the latents against FP32 after step {worst}: {errors[worst]:.3g}, "
            f"allowed {allowed[worst]:.3g}",
        ),
        _loss(wanted - final, limits, last),
        _floor(final, wanted, limits, last),
        _share(final, wanted, limits, last),
    )


def _loss(lost: Tensor, limits: Mapping[str, Any], last: int) -> Check:
    loss, allowed = mean_interval(lost, tests=1), limits["psnr_loss"]
    return loss.decide(-math.inf, allowed, -math.inf, limits["psnr_loss_gross"]).check(
        "fidelity.psnr",
        last,
        f"final PSNR lost against the simulation: {loss.estimate:.2f} dB (interval "
        f"{readable(loss.low, '.2f')} to {readable(loss.high, '.2f')}), allowed {allowed:g} dB",
    )


def _floor(final: Tensor, wanted: Tensor, limits: Mapping[str, Any], last: int) -> Check:
    middle, floor = float(median(final)), float(limits["psnr_floor"])
    return Check(
        "fidelity.floor",
        middle >= floor,
        None if middle >= floor else last,
        f"median final PSNR {middle:.2f} dB (the simulation has {float(median(wanted)):.2f}), "
        f"allowed from {floor:g} dB",
    )


def _share(final: Tensor, wanted: Tensor, limits: Mapping[str, Any], last: int) -> Check:
    """Seeds below the floor, device against simulation: a sign test over the seeds where only one of them is (McNemar), and
    a binomial test of the seeds that collapsed. With fewer than MINIMUM_SEEDS seeds the former could not fail whatever the
    device does, so that it is not decided.
    """
    floor, seeds = float(limits["psnr_floor"]), len(final)
    device, simulation = final < floor, wanted < floor
    named = [
        f"seed {k}: {float(final[k]):.1f} dB, simulation {float(wanted[k]):.1f}"
        for k in device.nonzero().flatten().tolist()
    ]
    shown = (
        f" ({'; '.join(named[:NAMED])}{f'; and {len(named) - NAMED} more' if len(named) > NAMED else ''})"
        if named
        else ""
    )
    decisions = [
        _sign_test(int((device & ~simulation).sum()), int((simulation & ~device).sum()), seeds),
        _collapse(
            int((device & (wanted - final > COLLAPSE_DB)).sum()),
            int((simulation & (final - wanted > COLLAPSE_DB)).sum()),
            seeds,
        ),
    ]
    outcome = outcome_of([each.outcome for each in decisions])
    more = max((each.more_seeds or 0 for each in decisions), default=0) if outcome == "not decided" else None
    return Decision(outcome, more).check(
        "fidelity.share",
        last,
        f"{int(device.sum())} of {seeds} seeds below {floor:g} dB{shown}, the simulation has "
        f"{int(simulation.sum())} of {seeds}",
    )


def _sign_test(lost: int, won: int, seeds: int) -> Decision:
    """``lost``, ``won``: seeds where only the device, only the simulation is below the floor."""

    def chance(count: int) -> float:
        """Of so many lost or more where two correct executions differ, at ``count`` seeds with the shares seen."""
        worse, better = lost * count // seeds, -(-won * count // seeds)
        return binomial_at_least(worse, worse + better, 0.5)

    if chance(seeds) < FAMILY_ALPHA:
        return Decision("fail")
    if chance(seeds) < MISS:
        return Decision("not decided", more_needed(lambda count: chance(count) < FAMILY_ALPHA, seeds))
    return Decision("not decided", MINIMUM_SEEDS - seeds) if seeds < MINIMUM_SEEDS else Decision("pass")


def _collapse(lost: int, won: int, seeds: int) -> Decision:
    """``lost``, ``won``: seeds that collapsed on the device, and in the simulation beside the device."""

    def chance(count: int) -> float:
        """Of a correct device to lose so many of ``count`` seeds."""
        return binomial_at_least(lost, count, max(COLLAPSE_RATE, won / seeds))

    if not lost or chance(seeds) >= MISS:
        return Decision("pass")
    if chance(seeds) < FAMILY_ALPHA:
        return Decision("fail")
    return Decision("not decided", more_needed(lambda count: chance(count) >= MISS, seeds))
