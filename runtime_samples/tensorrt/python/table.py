"""The sampler's table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from correction import Correction, read_correction
from safetensors_file import Floats
from values import as_list, as_number


@dataclass(frozen=True)
class Table:
    """The sampler's coefficients, float32. N steps.

    Attributes:
        timesteps, input_scale, c: (N,). a, b: a row per step, newest first. correction: around the network, None for nothing.
    """

    timesteps: Floats
    input_scale: Floats
    a: tuple[Floats, ...]
    b: tuple[Floats, ...]
    c: Floats
    correction: Correction | None


def read_table(row: Any) -> Table:
    """A table of bundle.json. Raises ValueError, KeyError or TypeError: it is none."""

    def numbers(values: Any) -> Floats:
        given = np.asarray(
            [as_number(value, "the table's entries") for value in as_list(values, "a row of the table")], np.float64
        )
        with np.errstate(over="ignore"):  # refused below
            found: Floats = given.astype(np.float32)
        if not np.isfinite(found).all():
            raise ValueError("the table holds a number that is not finite in float32")
        return found

    a, b = (tuple(numbers(values) for values in as_list(row[name], name)) for name in ("a", "b"))
    timesteps = numbers(row["timesteps"])
    steps = len(timesteps)
    correction = read_correction(row["correction"], steps) if "correction" in row else None
    table = Table(timesteps, numbers(row["input_scale"]), a, b, numbers(row["c"]), correction)
    if not steps or {len(table.input_scale), len(a), len(b), len(table.c)} != {steps}:
        raise ValueError("timesteps, input_scale, a, b and c of the table must have one entry per step")
    if any(len({len(values) for values in rows}) != 1 or not len(rows[0]) for rows in (a, b)):
        raise ValueError("rows of a, and of b, must have as many numbers each, 1 or more")
    for k in range(steps):
        if table.a[k][k + 1 :].any() or table.b[k][k + 1 :].any():
            raise ValueError(f"step {k} of the table needs latents or outputs from before the start")
    return table
