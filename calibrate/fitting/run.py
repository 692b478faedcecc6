"""Runs the phases of a fit one after the other, each with a checkpoint of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dq_toolchain.calibrate.fitting.phase import FitResult, Phase, Work
from dq_toolchain.calibrate.work.workers import Workers
from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.recipe.sections import Recipe
from dq_toolchain.toolchain.sampler.step_groups import StepGroups


def check_workers(
    method: str, phases: Sequence[Phase], recipe: Recipe, workers: Workers, step_groups: StepGroups
) -> None:
    """Raise RecipeError unless the processes can share the fit of a method, which is named."""
    if workers.count == 1:
        return
    for phase in phases:
        if phase.alone:
            raise RecipeError(
                f"{workers.count} processes share the samples of multi-step fits, but {method} "
                f"{'with --offload ' if recipe.run.offload else ''}{phase.alone}, which one process does; start it alone"
            )
    for phase in phases:
        for stage, taken in phase.shared_samples(recipe, step_groups).items():
            workers.check_shares(
                f"[calibrate] batch, of which stage {stage!r} takes {taken} samples an iteration", taken
            )


def fit_network(phases: Sequence[Phase], work: Work) -> FitResult:
    """Fit the network in place, from the checkpoints if there are any: the last phase's is ``work.checkpoint``.

    Raises:
        CalibrationError: a phase does not converge or is not finite.
    """
    done = []
    for phase in phases:
        checkpoint = work.checkpoint if phase is phases[-1] else work.checkpoint.before(phase.name)
        done.append(phase.run(replace(work, checkpoint=checkpoint)))
    growth = next((fitted.growth for fitted in done if fitted.growth is not None), None)
    return FitResult(
        [stage for fitted in done for stage in fitted.stages], growth, sum((fitted.seconds for fitted in done), 0.0)
    )
