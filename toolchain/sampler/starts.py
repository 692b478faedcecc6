"""Where a sampler can begin with a picture in the place of noise (SDEdit, Meng et al. 2021): ``start_probe`` reads it out of
diffusers' schedulers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dq_toolchain.toolchain.errors import RecipeError, SamplerError
from dq_toolchain.toolchain.sampler.correction import Correction
from dq_toolchain.toolchain.sampler.table import SamplerTable

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
