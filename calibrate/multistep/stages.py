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
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

from dq_toolchain.calibrate.multistep.gradients import Gradient
from dq_toolchain.toolchain.recipe.sections import CalibrateSection
from dq_toolchain.toolchain.sampler.step_groups import StepGroups

Learned = Literal["rounding", "scales", "ranges"]
"""What a stage fits: everything; all but rounding; ranges of activations alone."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """``window``: steps that segments are drawn from, [first, last).

    ``schedule``: from where to where on the cosine of the learning rate; stages that learn rounding share one.
    ``interval``: iterations from one validation to the next; None leaves it to the fit.
    """

    name: str
    iterations: int
    horizon: int
    window: tuple[int, int]
    learned: Learned
    inherited: bool
    gradient: Gradient
    schedule: tuple[float, float] = (0.0, 1.0)
    interval: int | None = None

    def to_json(self) -> dict[str, Any]:
        """What the artifact records; an interval only where the fit does not choose it."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def trajectories(self, batch: int) -> int:
        """Samples of one iteration: single steps take the whole batch, a segment half of it, for it has many steps."""
        return batch if self.horizon == 1 else max(1, batch // 2)

    @property
    def kept(self) -> int:
        """Steps whose activations one sample keeps at once: ``full`` keeps those of the whole segment."""
        return self.horizon if self.gradient == "full" else 1

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
    everywhere = partial(Stage, window=(0, calls), gradient=settings.gradient)
    stages = [
        everywhere(
            name="single-step warm-up",
            iterations=single,
            horizon=1,
            learned="rounding",
            inherited=False,
            schedule=(0.0, turn),
        ),
        everywhere(
            name="multi-step",
            iterations=multi,
            horizon=horizon,
            learned="rounding",
            inherited=inherited,
            schedule=(turn, 1.0),
        ),
        everywhere(
            name="settling", iterations=settings.settling, horizon=horizon, learned="scales", inherited=inherited
        ),
    ]
    for index, steps in enumerate(step_groups):
        stages.append(
            Stage(
                name=f"step group {index}",
                iterations=settings.group_iterations,
                horizon=len(steps),
                window=(steps[0], steps[-1] + 1),
                learned="ranges",
                inherited=True,
                gradient=settings.gradient,
            )
        )
    return tuple(stage for stage in stages if stage.iterations > 0)
