"""AccuQuant's control: the same fit one step at a time, which isolates what its multi-step objective is worth.

Every stage of AccuQuant that simulates several steps becomes one of single steps from FP32 latents that learns the same parameters
over the same steps, with as many iterations as cost the same number of forward and backward passes, and as many validations.
Batch, samples, learning rates, averaging and keeping of the best state are AccuQuant's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar

from dq_toolchain.calibrate.fitting.multi_step import MultiStep
from dq_toolchain.calibrate.fitting.passes import iteration_passes, validations
from dq_toolchain.calibrate.methods.base import Method
from dq_toolchain.calibrate.multistep.stages import Stage
from dq_toolchain.toolchain.recipe.sections import Recipe
from dq_toolchain.toolchain.sampler.step_groups import StepGroups


def in_single_steps(stages: Iterable[Stage], batch: int) -> tuple[Stage, ...]:
    """The stages with horizon 1 and the same passes: what rounding to whole iterations leaves over goes to the next stage."""
    found, left = [], 0.0
    for stage in stages:
        single = replace(
            stage, name=stage.name.replace("multi-step", "single-step"), horizon=1, inherited=False, gradient="adjoint"
        )
        wanted = stage.iterations * iteration_passes(stage, batch) + left
        iterations = max(1, round(wanted / iteration_passes(single, batch)))
        left = wanted - iterations * iteration_passes(single, batch)
        found.append(replace(single, iterations=iterations, interval=-(-iterations // validations(stage))))
    return tuple(found)


class SingleStep(MultiStep):
    """AccuQuant's phase in single steps."""

    name: ClassVar[str] = "single_step"

    def stages(self, recipe: Recipe, step_groups: StepGroups) -> tuple[Stage, ...]:
        return in_single_steps(super().stages(recipe, step_groups), recipe.calibrate.batch)


METHODS = (Method("single-step", "AccuQuant with horizon 1 at equal passes", fit=(SingleStep(),)),)
