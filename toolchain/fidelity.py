"""Device against FP32: is the picture right? First of the two verdicts.

Everything is judged on the device's own rollout, with the limits that export derived (``limits``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dq_toolchain.toolchain.checks import Check, first, first_not_finite, mean_interval
from dq_toolchain.toolchain.metrics import psnr, rollout_error
from dq_toolchain.toolchain.reference import Reference
from dq_toolchain.toolchain.report import median


def fidelity(latents: Tensor, reference: Reference, limits: Mapping[str, Any]) -> tuple[Check, ...]:
    """The checks fidelity.finite, .error, .psnr and .floor.

    Args:
        latents: (N+1, S, C, H, W) float32, the device's own rollout.
        limits: the part "fidelity" of a bundle's limits.
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
    wanted = torch.tensor(limits["simulation_psnr"], dtype=torch.float64)
    loss, middle, floor = mean_interval(wanted - final, tests=1), float(median(final)), float(limits["psnr_floor"])
    last = len(errors) - 1
    lost = loss.outside(-float("inf"), limits["psnr_loss"], -float("inf"), limits["psnr_loss_gross"])
    return (
        Check("fidelity.finite", True, None, "all latents are finite"),
        Check("fidelity.error", above is None, above,
              f"relative error of the latents against FP32 after step {worst}: {errors[worst]:.3g}, "
              f"allowed {allowed[worst]:.3g}"),
        Check("fidelity.psnr", not lost, last if lost else None,
              f"final PSNR lost against the simulation: {loss.estimate:.2f} dB "
              f"(interval {loss.low:.2f} to {loss.high:.2f}), allowed {limits['psnr_loss']:g} dB"),
        Check("fidelity.floor", middle >= floor, None if middle >= floor else last,
              f"median final PSNR {middle:.2f} dB (the simulation has {float(median(wanted)):.2f}), "
              f"allowed from {floor:g} dB"),
    )
