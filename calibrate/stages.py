"""The plan of a fit: a list of stages, each a kind of multi-step iteration on a set of parameters.

1. warm-up: single steps from FP32 latents, weights and all ranges;
2. joint: segments of ``horizon`` steps anywhere in the trajectory, weights and all ranges, over all step groups;
3. one stage per step group: its ranges only, weights fixed, from the latents that the groups before it left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from dq_toolchain.calibrate.gradients import Gradient
from dq_toolchain.toolchain.recipe import CalibrateSection
from dq_toolchain.toolchain.step_groups import StepGroups


@dataclass(frozen=True)
class Stage:
    """``window``: steps that segments are drawn from, [first, last). ``weights``: whether weights are fitted too.

    ``schedule``: from where to where on the cosine of the learning rate; stages that fit weights share one.
    """

    name: str
    iterations: int
    horizon: int
    window: tuple[int, int]
    weights: bool
    inherited: bool
    gradient: Gradient
    schedule: tuple[float, float] = (0.0, 1.0)

    def rate(self, iteration: int) -> float:
        """Learning rate as a share of the base one: the stage's part of a half cosine."""
        begin, end = self.schedule
        return 0.5 * (1 + math.cos(math.pi * (begin + (end - begin) * iteration / self.iterations)))


def plan(settings: CalibrateSection, step_groups: StepGroups) -> tuple[Stage, ...]:
    """The stages in order; empty ones are left out."""
    calls = step_groups[-1][-1] + 1
    horizon = min(settings.horizon, calls)
    inherited = settings.start == "inherited"
    single, multi = settings.warmup, settings.iterations
    turn = single / max(1, single + multi)
    stages = [
        Stage("single-step warm-up", single, 1, (0, calls), True, False, settings.gradient, (0.0, turn)),
        Stage("multi-step", multi, horizon, (0, calls), True, inherited, settings.gradient, (turn, 1.0)),
    ]
    for index, steps in enumerate(step_groups):
        window = (steps[0], steps[-1] + 1)
        stages.append(
            Stage(f"step group {index}", settings.group_iterations, len(steps), window, False, True, settings.gradient)
        )
    return tuple(stage for stage in stages if stage.iterations > 0)
