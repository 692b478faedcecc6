"""Reads out of diffusers' schedulers where a run can begin with a picture.

``signal`` and ``noise`` are what ``add_noise`` or ``scale_noise`` multiplies by. A sampler that looks back on earlier calls has
none of them where it begins, so its first steps are of lower order: then a start has a table of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from dq_toolchain.toolchain.errors import SamplerError
from dq_toolchain.toolchain.sampler.diffusers_scheduler import errors_of
from dq_toolchain.toolchain.sampler.probe import Run, differ, first_disagreement, probe
from dq_toolchain.toolchain.sampler.starts import Start, tail
from dq_toolchain.toolchain.sampler.table import SamplerTable

MOST_STEPS = 100
"""Each start of a sampler that looks back has a table of its own, so their size grows with the square of the steps."""


def probe_starts(
    scheduler: Any, steps: int, table: SamplerTable, *, eta: float = 0.0, timesteps: Mapping[str, Any] | None = None
) -> tuple[Start, ...]:
    """A start for each of the steps, the noisiest first; the scheduler itself is left untouched.

    Args:
        scheduler, steps, eta, timesteps: that ``table`` was probed with.
    Raises:
        SamplerError: the scheduler adds no noise to a picture, or not as a sum of multiples; more than MOST_STEPS; or the calls
            of a start are not those of the table.
    """
    name = type(scheduler).__name__
    if steps > MOST_STEPS:
        raise SamplerError(f"starts with a picture are held for up to {MOST_STEPS} steps, got {steps}; take fewer")
    found = []
    for step in range(steps):
        call = step * int(getattr(scheduler, "order", 1))
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(step)
            signal, noise = _mixed(scheduler, steps, timesteps or {}, call)
            own, rest = None, tail(table.uncorrected, call)
            if rest is None or first_disagreement(rest, Run(scheduler, steps, eta, timesteps or {}, call)) is not None:
                own = probe(scheduler, steps, eta=eta, timesteps=timesteps, first=call)
        given = (table.timesteps[call:], table.input_scale[call:])
        if own is not None and (own.timesteps, own.input_scale) != given:
            raise SamplerError(
                f"{name} calls the network otherwise when it begins at call {call}; take another scheduler"
            )
        found.append(Start(call, signal, noise, own))
    return tuple(found)


def _mixed(scheduler: Any, steps: int, timesteps: Mapping[str, Any], call: int) -> tuple[float, float]:
    """What picture and noise are multiplied by where a run begins with this call."""
    name = type(scheduler).__name__
    with errors_of(name, scheduler.config):
        own = copy.deepcopy(scheduler)
        own.set_timesteps(None if "sigmas" in timesteps else steps, **timesteps)
        if hasattr(own, "set_begin_index"):
            own.set_begin_index(call)
        timestep = own.timesteps[call : call + 1]
    scale: Any = getattr(own, "scale_noise", None)  # of flow matching
    add: Any = getattr(own, "add_noise", None)
    if scale is None and add is None:
        raise SamplerError(f"{name} adds no noise to a picture; name the folder of another scheduler with --scheduler")

    def mixed(picture: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        with errors_of(name, scheduler.config):
            result: torch.Tensor = add(picture, noise, timestep) if scale is None else scale(picture, timestep, noise)
            return result

    unit = torch.eye(2, dtype=torch.float64).view(2, 1, 2, 1, 1)
    signal, share = mixed(unit[0], unit[1]).flatten().tolist()
    picture, noise = torch.randn((2, 1, 4, 4, 4), dtype=torch.float64)
    if differ(signal * picture + share * noise, mixed(picture, noise)):
        raise SamplerError(f"{name} adds noise to a picture in a way that is not linear; take another scheduler")
    return signal, share
