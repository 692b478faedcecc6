"""The plan of a fit: a list of stages, each a kind of multi-step iteration on a set of parameters.

1. warm-up: single steps from FP32 latents; rounding, weight scales, biases and all ranges;
2. joint: segments of ``horizon`` steps anywhere in the trajectory, the same parameters, over all step groups;
3. settling: the same segments with the integers as they are; weight scales, biases and all ranges;
4. one stage per step group: its ranges only, weights fixed, from the latents that the groups before it left.

Settling comes last among those that reach weights since it is free of what limits the others: a learned rounding
flips integers near the boundary at every iteration, and the noise of a gradient flips them too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from dq_toolchain.calibrate.multistep.gradients import Gradient
from dq_toolchain.toolchain.recipe.sections import CalibrateSection
from dq_toolchain.toolchain.sampler.step_groups import StepGroups

Learned = Literal["rounding", "scales", "ranges"]
"""What a stage fits: everything; all but rounding; ranges of activations alone."""


@dataclass(frozen=True)
class Stage:
    """``window``: steps that segments are drawn from, [first, last).

    ``schedule``: from where to where on the cosine of the learning rate; stages that learn rounding share one.
    """

    name: str
    iterations: int
    horizon: int
    window: tuple[int, int]
    learned: Learned
    inherited: bool
    gradient: Gradient
    schedule: tuple[float, float] = (0.0, 1.0)

    def trajectories(self, batch: int) -> int:
        """Samples of one iteration: single steps take the whole batch, a segment half of it, for it has many steps."""
        return batch if self.horizon == 1 else max(1, batch // 2)

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
    everywhere = (0, calls)
    stages = [
        Stage("single-step warm-up", single, 1, everywhere, "rounding", False, settings.gradient, (0.0, turn)),
        Stage("multi-step", multi, horizon, everywhere, "rounding", inherited, settings.gradient, (turn, 1.0)),
        Stage("settling", settings.settling, horizon, everywhere, "scales", inherited, settings.gradient),
    ]
    for index, steps in enumerate(step_groups):
        window = (steps[0], steps[-1] + 1)
        name = f"step group {index}"
        stages.append(Stage(name, settings.group_iterations, len(steps), window, "ranges", True, settings.gradient))
    return tuple(stage for stage in stages if stage.iterations > 0)
