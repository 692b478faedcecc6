"""Other step counts and guidance scales for a calibrated network: each its own sampler table, the same step groups by timestep.

An artifact and a bundle carry them beside the table that was calibrated. Weights and activation parameters are those of
the calibration: only the sampler changes, and which step group a call takes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dq_toolchain.toolchain.errors import RecipeError, SamplerError
from dq_toolchain.toolchain.sampler.step_groups import StepGroups
from dq_toolchain.toolchain.sampler.table import SamplerTable

MOST = 16
"""Of them beside the calibrated one: each has held-out rollouts of its own in every bundle."""
ALIKE = 1e-6
"""Relative: guidance scales that differ by less are the same, so that float32 and text may stand between them."""


@dataclass(frozen=True)
class Sampling:
    """Attributes:
    steps: what the scheduler was asked for; its network calls, ``table.calls``, can be more.
    guidance: w of the sampler's own guidance, 1 is none.
    table: of so many steps, without a correction.
    step_groups: as many lists of calls as the calibration has step groups, in order; one may be empty.
    """

    steps: int
    guidance: float
    table: SamplerTable
    step_groups: StepGroups

    @property
    def name(self) -> str:
        """In messages."""
        return f"{self.steps} steps, guidance {self.guidance:g}"

    @property
    def file(self) -> str:
        """Of its held-out rollouts."""
        return f"reference-{self.steps}-{self.guidance:g}.safetensors"

    def is_of(self, steps: int, guidance: float) -> bool:
        return self.steps == steps and math.isclose(self.guidance, guidance, rel_tol=ALIKE)

    def fault(self, groups: int) -> str | None:
        """What is wrong with it beside a calibration of so many step groups; None if nothing is."""
        flat = [step for steps in self.step_groups for step in steps]
        if len(self.step_groups) != groups or flat != list(range(self.table.calls)):
            return f"step groups of {self.name} must be {groups} lists of the steps 0-{self.table.calls - 1} in order"
        return None

    def to_json(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "guidance": self.guidance,
            "table": self.table.to_json(),
            "step_groups": [list(steps) for steps in self.step_groups],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Sampling:
        """What ``to_json`` wrote, valid by its schema. Raises SamplerError, KeyError, TypeError or ValueError."""
        groups = tuple(tuple(map(int, steps)) for steps in data["step_groups"])
        return cls(int(data["steps"]), float(data["guidance"]), SamplerTable.from_json(data["table"]), groups)


def to_json(steps: int | None, samplings: Sequence[Sampling]) -> dict[str, Any]:
    """The keys of a calibration.json that has other samplings; none without them."""
    return {"steps": steps, "samplings": [each.to_json() for each in samplings]} if samplings else {}


def step_groups_at(timesteps: Sequence[float], calibrated: Sequence[float], groups: StepGroups) -> StepGroups:
    """The step groups of other timesteps: every call takes that of the calibrated call whose timestep is nearest.

    So a group reaches half way to the timesteps of its neighbours, and the first and the last one to the ends. Half way
    between two, the earlier call counts. Where a sampler calls the network twice at one timestep (Heun) and a group ends
    between the two, the first call takes the group of the first. No call goes back to a group that an earlier one has
    left. The calibrated timesteps themselves give the calibrated groups.

    Args:
        timesteps: of the other table. calibrated: of the calibrated one, in whose calls ``groups`` are.
    """
    places: dict[float, list[int]] = {}
    for group, calls in enumerate(groups):
        for k in calls:
            places.setdefault(calibrated[k], []).append(group)
    found: list[list[int]] = [[] for _ in groups]
    seen: dict[float, int] = {}
    last = 0
    for k, timestep in enumerate(timesteps):
        nearest = min(
            places, key=lambda other: abs(other - timestep)
        )  # of equal ones the first: dicts keep their order
        times = seen[timestep] = seen.get(timestep, -1) + 1
        last = max(last, places[nearest][min(times, len(places[nearest]) - 1)])
        found[last].append(k)
    return tuple(map(tuple, found))


def all_timesteps(table: SamplerTable, samplings: Iterable[Sampling] = ()) -> tuple[float, ...]:
    """Every timestep that the network is given in any of the tables: those of the calls of ``table``, then what is new in the
    others, each once."""
    others = dict.fromkeys(t for each in samplings for t in each.table.timesteps)
    return (*table.timesteps, *(t for t in others if t not in table.timesteps))


def check_wanted(steps: Sequence[int], guidance: Sequence[float], flags: tuple[str, str]) -> None:
    """Raise RecipeError unless nothing is asked for twice, nor more than MOST in all.

    Args:
        flags: what sets the one and the other.
    """
    for flag, values in zip(flags, (steps, guidance), strict=True):
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise RecipeError(f"{flag}: got {twice:g} twice, allowed is each once; leave one out")
    count = (1 + len(steps)) * (1 + len(guidance)) - 1
    if count > MOST:
        raise RecipeError(
            f"{' and '.join(flags)}: {len(steps)} step counts and {len(guidance)} guidance scales make {count} samplers beside "
            f"the calibrated one, allowed are {MOST}; name fewer"
        )


def chosen(
    samplings: Sequence[Sampling], steps: int, guidance: float, wanted: Sequence[int], scales: Sequence[float]
) -> tuple[Sampling, ...]:
    """Of the samplings of an artifact those that are asked for; each count with each scale, the calibrated ones included.

    Args:
        steps, guidance: of the calibration, which need not be asked for.
        wanted: step counts. scales: of guidance.
    Raises:
        SamplerError: the artifact has no held-out rollouts of one of them.
    """
    counts, every = {steps, *wanted}, [guidance, *scales]
    found = []
    for count in sorted(counts):
        for scale in dict.fromkeys(every):
            if count == steps and math.isclose(scale, guidance, rel_tol=ALIKE):
                continue
            one = next((each for each in samplings if each.is_of(count, scale)), None)
            if one is None:
                held = ", ".join(each.name for each in samplings) or "no others"
                raise SamplerError(
                    f"--steps, --guidance: the artifact has no FP32 rollouts of {count} steps, guidance {scale:g} to judge a "
                    f"device by, it is calibrated at {steps} steps, guidance {guidance:g}, and has {held}; calibrate again "
                    "with --more-steps or --more-guidance"
                )
            found.append(one)
    return tuple(found)
