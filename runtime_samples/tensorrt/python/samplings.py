"""Other step counts and guidance scales of a bundle: the same program with other tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from table import Table, read_table
from values import as_integer, as_list, as_number, as_text

MOST_STEPS, MOST_GUIDANCE = 100_000, 1e6
ALIKE = 1e-6
"""Relative: guidance is float32 here, and text on the command line."""


@dataclass(frozen=True)
class Sampling:
    """Attributes: steps: of the scheduler. group_of_step: step group of every call. reference: file of its held-out rollouts.
    step_vectors: file of the input of that name, a row per call; None where the program takes the timestep."""

    steps: int
    guidance: np.float32
    table: Table
    group_of_step: tuple[int, ...]
    reference: str
    step_vectors: str | None

    @property
    def name(self) -> str:
        return f"{self.steps} steps, guidance {self.guidance:g}"

    def is_of(self, steps: int, guidance: float) -> bool:
        return self.steps == steps and math.isclose(float(self.guidance), guidance, rel_tol=ALIKE)


def read_samplings(data: Mapping[str, Any], groups: int, takes_vectors: bool) -> tuple[Sampling, ...]:
    """Of bundle.json; none where it has none. Raises ValueError, KeyError or TypeError: they are damaged.

    Args:
        takes_vectors: the program has the input ``step_vectors``.
    """
    found: list[Sampling] = []
    for row in as_list(data.get("samplings", []), "samplings"):
        table = read_table(row["table"])
        listed = groups_of(row, len(table.timesteps))
        if len(listed) != groups:
            raise ValueError(f"samplings must have {groups} step groups, got {len(listed)}")
        group_of_step = tuple(group for group, steps in enumerate(listed) for _ in steps)
        vectors = as_text(row["step_vectors"], "step_vectors") if takes_vectors else None
        reference = as_text(row["reference"], "reference")
        one = Sampling(as_steps(row), as_guidance(row), table, group_of_step, reference, vectors)
        if any(each.is_of(one.steps, float(one.guidance)) for each in found):
            raise ValueError(f"samplings hold {one.name} twice")
        found.append(one)
    return tuple(found)


def groups_of(row: Mapping[str, Any], calls: int) -> list[list[int]]:
    """Step groups, each perhaps empty. Raises ValueError: they are not the steps in order."""
    listed = as_list(row["step_groups"], "step_groups")
    groups = [[as_integer(step, "step_groups") for step in as_list(steps, "step_groups")] for steps in listed]
    if [step for steps in groups for step in steps] != list(range(calls)):
        raise ValueError(f"step_groups must list the steps 0-{calls - 1} in order, each once")
    return groups


def as_steps(row: Mapping[str, Any]) -> int:
    steps = as_integer(row["steps"], "steps")
    if not 1 <= steps <= MOST_STEPS:
        raise ValueError(f"steps must be 1-{MOST_STEPS}, got {steps}")
    return steps


def as_guidance(row: Mapping[str, Any]) -> np.float32:
    guidance = as_number(row["guidance"], "guidance")
    if not abs(guidance) <= MOST_GUIDANCE:
        raise ValueError(f"guidance must be within a million, got {guidance}")
    found: np.float32 = np.float32(guidance)
    return found
