"""The phase that fits over several denoising steps at once: AccuQuant's stages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any, ClassVar

from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.fitting import VALIDATION_SHARE
from dq_toolchain.calibrate.fitting.blocks import BLOCKS
from dq_toolchain.calibrate.fitting.memory import BROUGHT_NEAR, LEARNED, NEAREST, OFFLOADED
from dq_toolchain.calibrate.fitting.passes import growth_passes, paced, stage_passes
from dq_toolchain.calibrate.fitting.phase import WEIGHTS, FitResult, Needs, Phase, Work
from dq_toolchain.calibrate.fitting.second_order import SECOND_ORDER
from dq_toolchain.calibrate.multistep.fit import MultiStepFit
from dq_toolchain.calibrate.multistep.problem import Problem
from dq_toolchain.calibrate.multistep.stages import Stage, plan
from dq_toolchain.calibrate.network.activation_checkpointing import checkpointed
from dq_toolchain.calibrate.network.activation_memory import ActivationMemory
from dq_toolchain.calibrate.work.constants import constants_of
from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.recipe.effort import LEARNING, NARROW
from dq_toolchain.toolchain.recipe.sections import Recipe
from dq_toolchain.toolchain.sampler.step_groups import StepGroups

MODULES = (
    *WEIGHTS,
    "fitting",
    *(f"multistep.{name}" for name in ("fit", "problem", "growth", "objective", "stages", "gradients")),
)
"""Whose constants decide the result."""
ITERATIONS = (*LEARNING, "settling", "group_iterations")
SETTINGS = ("batch", "steps", "scale_lr", "rounding_lr")
"""Of [calibrate], beside those that decide the stages."""


class MultiStep(Phase):
    name: ClassVar[str] = "multi_step"
    sections: ClassVar[frozenset[str]] = frozenset({"calibrate"})

    def stages(self, recipe: Recipe, step_groups: StepGroups) -> tuple[Stage, ...]:
        """What is done, in order."""
        return plan(recipe.calibrate, step_groups)

    def before(self, recipe: Recipe) -> tuple[Phase, ...]:
        """Rounding in closed form comes first. With ``offload`` there is no memory to learn all rounding at once: it is learned
        block after block."""
        rounding = recipe.calibrate.rounding
        if rounding.endswith("learned") and not recipe.run.offload and not _total(recipe, LEARNING):
            raise RecipeError(
                f"[calibrate] rounding: got {rounding!r}, which learns over iterations, of which there are none; set [calibrate] "
                f"warmup (--warmup), as 400, or effort (--effort) best (the others have none above {NARROW} bits), or take "
                "'closed-form' or 'nearest'"
            )
        if rounding.endswith("learned") and recipe.run.offload:
            if rounding != "learned":
                raise RecipeError(
                    f"[calibrate] rounding: got {rounding!r}, which learns all rounding at once; allowed with --offload are "
                    "'closed-form' (the fastest), 'learned' (block after block) and 'nearest'; choose one"
                )
            return (BLOCKS,)
        return (SECOND_ORDER,) if rounding.startswith("closed-form") else ()

    def is_idle(self, recipe: Recipe) -> bool:
        return not _total(recipe, ITERATIONS)

    def shared_samples(self, recipe: Recipe, step_groups: StepGroups) -> dict[str, int]:
        fitted = recipe.calibrate.samples - _validation(recipe)
        stages = self.stages(recipe, step_groups)
        return {stage.name: min(fitted, stage.trajectories(recipe.calibrate.batch)) for stage in stages}

    def run(self, work: Work) -> FitResult:
        context, network, recipe = work.trajectories.context, work.network, work.recipe
        problem = Problem(
            context=context,
            targets=work.trajectories.targets,
            validation=_validation(recipe),
            settings=recipe.calibrate,
        )
        if recipe.calibrate.steps == "growth":
            problem = problem.with_growth(network)
        stages = self.stages(recipe, context.step_groups)
        fit = MultiStepFit(network, problem, stages, work.checkpoint, work.reporter.warn)
        saving = checkpointed(network.inner) if network.low_memory else nullcontext()
        validating = _validation(recipe) * context.table.calls
        with saving, work.reporter.task("fitting", fit.total_iterations) as advance:
            done = fit.run(paced(fit.stages, recipe.calibrate.batch, validating, advance, work.reporter.say))
        growth = None if problem.growth is None else [round(g, 4) for g in problem.growth.tolist()]
        return FitResult(done, growth, fit.progress.seconds)

    def needs(self, context: Context, recipe: Recipe, one: ActivationMemory) -> Needs:
        learned, offload = recipe.calibrate.rounding.endswith("learned"), recipe.run.offload
        near = BROUGHT_NEAR if recipe.calibrate.rounding == "closed-form+learned" else 0.0
        stages, count = self.stages(recipe, context.step_groups), context.workers.count
        each = one.backward + (0 if offload else one.inputs)
        kept = [stage.kept * -(-stage.trajectories(recipe.calibrate.batch) // count) for stage in stages]
        return Needs(
            per_weight=OFFLOADED if offload else LEARNED + near if learned else NEAREST,
            activations=each * max(kept, default=0),
            of_one_sample=each * max((stage.kept for stage in stages), default=0),
        )

    def passes(self, context: Context, recipe: Recipe) -> float:
        stages = self.stages(recipe, context.step_groups)
        growth = growth_passes(context.table.calls) if recipe.calibrate.steps == "growth" else 0.0
        return growth + sum(stage_passes(stages, recipe.calibrate.batch, _validation(recipe) * context.table.calls))

    def hyper_parameters(
        self, recipe: Recipe, block_options: Mapping[str, Any], step_groups: Iterable[tuple[int, ...]]
    ) -> dict[str, Any]:
        return {
            **{name: getattr(recipe.calibrate, name) for name in SETTINGS},
            "stages": [stage.to_json() for stage in self.stages(recipe, tuple(step_groups))],
            "constants": constants_of(*MODULES),
        }


MULTI_STEP = MultiStep()


def _total(recipe: Recipe, keys: Iterable[str]) -> int:
    return sum(getattr(recipe.calibrate, key) for key in keys)


def _validation(recipe: Recipe) -> int:
    return max(1, recipe.calibrate.samples // VALIDATION_SHARE)
