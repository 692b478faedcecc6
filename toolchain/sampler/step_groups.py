"""Step groups: contiguous runs of denoising steps that share activation parameters, the noisiest first."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from dq_toolchain.toolchain.errors import ArtifactError, RecipeError

StepGroups = tuple[tuple[int, ...], ...]
USUAL, FEW = 5, 8
"""Step groups where none are asked for: one for each network call of up to FEW, else USUAL."""


def even_step_groups(calls: int, count: int | None = None) -> StepGroups:
    """``count`` contiguous groups over ``calls`` steps, sizes differing by at most one; None: one for each of a few calls, else the
    usual number.

    Raises:
        RecipeError: count is not in 1..calls.
    """
    if count is None:
        count = calls if calls <= FEW else USUAL
    if not 1 <= count <= calls:
        raise RecipeError(
            f"step groups must be 1-{calls} (the number of network calls), got {count}; set --step-groups"
        )
    edges = [round(i * calls / count) for i in range(count + 1)]
    return tuple(tuple(range(a, b)) for a, b in itertools.pairwise(edges))


def check_step_groups(groups: Sequence[Sequence[int]], calls: int, where: str = "step groups") -> None:
    """Raise ArtifactError, ``where`` first, unless the groups cover 0..calls-1 in order, each step once."""
    flat = [step for steps in groups for step in steps]
    if flat != list(range(calls)) or not all(len(steps) for steps in groups):
        raise ArtifactError(
            f"{where} must cover steps 0-{calls - 1} in order, got {_short(groups)}; run `dq-toolchain calibrate` again"
        )


def _short(groups: Sequence[Sequence[int]]) -> str:
    text = str([list(steps[:20]) for steps in groups[:20]])
    return text if len(text) < 200 else f"{text[:200]}... ({len(groups)} groups)"
