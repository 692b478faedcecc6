"""Where a sampler can begin with a picture in the place of noise (SDEdit, Meng et al. 2021), read out of diffusers' schedulers.

``signal`` and ``noise`` are what ``add_noise`` or ``scale_noise`` multiplies by. A sampler that looks back on earlier calls has
none of them where it begins, so its first steps are of lower order: then a start has a table of its own.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from dq_toolchain.toolchain.errors import RecipeError, SamplerError
from dq_toolchain.toolchain.sampler.correction import Correction
from dq_toolchain.toolchain.sampler.diffusers_scheduler import errors_of
from dq_toolchain.toolchain.sampler.probe import Run, differ, first_disagreement, probe
from dq_toolchain.toolchain.sampler.table import SamplerTable

MOST_STEPS = 100
"""Each start of a sampler that looks back has a table of its own, so their size grows with the square of the steps."""
ROUNDS = ("up", "down")
"""Where steps times strength is no whole number, the first step: the later of two, or the earlier."""


@dataclass(frozen=True)
class Start:
    """One step that a run can begin at: x = signal * picture + noise * noise of variance 1.

    Attributes:
        call: network call that the run begins with.
        table: of the remaining calls; None where it is the tail of the whole table.
    """

    call: int
    signal: float
    noise: float
    table: SamplerTable | None = None

    def remaining(self, whole: SamplerTable) -> SamplerTable:
        """The table of the remaining calls, with their corrections. Raises SamplerError: ``whole`` is not its table."""
        if self.table is None:
            rest = tail(whole, self.call)
            if rest is None:
                raise SamplerError(
                    f"the sampler looks back beyond call {self.call}, at which a run begins; calibrate and export again"
                )
            return rest
        return replace(self.table, correction=_rows_from(whole.correction, self.call))

    def to_json(self) -> dict[str, Any]:
        table = None if self.table is None else self.table.to_json()
        return {"call": self.call, "signal": self.signal, "noise": self.noise, "table": table}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Start:
        """What ``to_json`` wrote. Raises SamplerError, KeyError, TypeError or ValueError."""
        signal, noise, table = float(data["signal"]), float(data["noise"]), data["table"]
        if not (math.isfinite(signal) and math.isfinite(noise)) or int(data["call"]) < 0:
            raise ValueError(f"a start at call {data['call']} with signal {signal} and noise {noise}")
        return cls(int(data["call"]), signal, noise, None if table is None else SamplerTable.from_json(table))


def tail(table: SamplerTable, first: int) -> SamplerTable | None:
    """The table of the calls from ``first`` on; None if one of them looks back before it."""
    if any(any(row[j + 1 :]) for rows in (table.a, table.b) for j, row in enumerate(rows[first:])):
        return None
    return replace(
        table,
        timesteps=table.timesteps[first:],
        a=table.a[first:],
        b=table.b[first:],
        c=table.c[first:],
        input_scale=table.input_scale[first:],
        correction=_rows_from(table.correction, first),
    )


def _rows_from(correction: Correction | None, first: int) -> Correction | None:
    if correction is None:
        return None
    rows = (correction.input_shift, correction.output_scale, correction.output_shift)
    return Correction(*(each[first:] for each in rows))


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


def chosen_start(starts: Sequence[Start], strength: float, rounds: str) -> Start:
    """Where a run of this strength begins, in float64 as diffusers' pipelines reckon.

    Raises:
        RecipeError: a strength outside of (0, 1], or one that leaves no step.
    """
    return starts[first_step(strength, len(starts), rounds)]


def first_step(strength: float, steps: int, rounds: str) -> int:
    """The step that a run begins at. Raises RecipeError: as ``chosen_start``."""
    if not 0 < strength <= 1:
        raise RecipeError(f"--strength must be above 0 and at most 1, got {strength:g}; change it")
    step = _rounded(strength, steps, rounds)
    if step >= steps:
        least = next(n / 1000 for n in range(1, 1001) if _rounded(n / 1000, steps, rounds) < steps)
        raise RecipeError(
            f"--strength {strength:g} leaves none of {steps} steps, allowed is {least:g} or more; raise it, or take more steps"
        )
    return step


def _rounded(strength: float, steps: int, rounds: str) -> int:
    if rounds == "up":
        return steps - min(int(steps * strength), steps)
    return int(steps - min(steps * strength, steps))
