"""The first execution of a lowered program, once per step group: some faults of a lowering show nowhere else."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dq_toolchain.backends.base import Execute
from dq_toolchain.backends.common.sampling import DeviceNetwork
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.metrics import relative_error
from dq_toolchain.toolchain.sampler.table import SamplerTable

TOLERANCE = 2.0
"""Allowed distance from the simulation in units of the simulation's own error: sqrt(2) for two correct executions
that share nothing but the size of their errors, none at all where no rounding flips."""

REPORT = "report it with calibration.json"
IN_FP16 = f"add --precision fp32, and if that is refused too {REPORT}"
"""What to do about a program that is wrong."""

FLOOR = 1e-3
"""Relative; below it errors are float32 summation."""


def smoke(
    execute: Execute,
    table: SamplerTable,
    guidance: float,
    group_of_step: Sequence[int],
    reference: Reference,
    remedy: str = REPORT,
) -> None:
    """Execute the first step of every step group at the simulation's latents, first held-out seed.

    Raises:
        BackendError: it does not execute, is not finite, or is farther than TOLERANCE from the simulation.
    """
    network = DeviceNetwork(execute, table, guidance, reference.conditioning.select(slice(1)))
    first_steps = [group_of_step.index(g) for g in range(max(group_of_step) + 1)]
    for group, k in enumerate(first_steps):
        out, simulated = network(reference.simulation_latents[k][:1], k), reference.simulation_outputs[k][:1]
        if not torch.isfinite(out).all():
            raise BackendError(
                f"the lowered program gives NaN or infinity in step group {group}; nothing was exported; "
                f"{'calibrate again' if remedy == REPORT else remedy}"
            )
        error = float(relative_error(simulated, reference.fp32_outputs_at_simulation[k][:1]))
        distance = float(relative_error(out, simulated))
        allowed = TOLERANCE * error + FLOOR
        if distance > allowed:
            raise BackendError(
                f"the lowered program is {distance:.3g} from the simulation in step group {group}, allowed is "
                f"{allowed:.3g}; nothing was exported; {remedy}"
            )
