"""The fit of a method: none, block after block, or AccuQuant's stages."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from dq_toolchain.calibrate.blocks.evaluations import Rows, rows_of
from dq_toolchain.calibrate.blocks.reconstruct import BlockBudget, BlockOptions, planned_iterations, reconstruct
from dq_toolchain.calibrate.blocks.storage import Room
from dq_toolchain.calibrate.data.trajectories import Trajectories
from dq_toolchain.calibrate.methods.base import Method
from dq_toolchain.calibrate.multistep.fit import Fit
from dq_toolchain.calibrate.multistep.problem import Problem
from dq_toolchain.calibrate.multistep.stages import plan
from dq_toolchain.calibrate.network.activation_checkpointing import recomputed
from dq_toolchain.calibrate.network.insert import QuantizedNetwork
from dq_toolchain.calibrate.prepare.setup import Setup
from dq_toolchain.calibrate.work.checkpoint import CheckpointFile
from dq_toolchain.calibrate.work.workers import Workers
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.recipe.sections import Recipe
from dq_toolchain.toolchain.sampler.step_groups import StepGroups

VALIDATION_SHARE = 8
"""One calibration sample in eight only judges iterates; it is never fitted (nor is any held-out sample)."""


@dataclass(frozen=True)
class Fitted:
    """What a fit leaves beside the network: a record per stage, the growth of errors if it was measured, seconds."""

    stages: list[dict[str, Any]]
    growth: list[float] | None
    seconds: float


def check_workers(recipe: Recipe, method: Method, workers: Workers, step_groups: StepGroups) -> None:
    """Raise RecipeError unless the processes can share the fit."""
    if workers.count == 1:
        return
    if "blocks" in method.fit or recipe.run.offload:
        raise RecipeError(
            f"{workers.count} processes share the samples of multi-step fits, but {method.name} "
            f"{'with --offload ' if recipe.run.offload else ''}reconstructs blocks, which one process does; start it alone"
        )
    fitted = recipe.calibrate.samples - _judging(recipe)
    for stage in plan(recipe.calibrate, step_groups) if method.fit == "accuquant" else ():
        taken = min(fitted, stage.trajectories(recipe.calibrate.batch))
        workers.check_shares(
            f"[calibrate] batch, of which stage {stage.name!r} takes {taken} samples an iteration", taken
        )


def _judging(recipe: Recipe) -> int:
    return max(1, recipe.calibrate.samples // VALIDATION_SHARE)


def fit_network(
    recipe: Recipe,
    method: Method,
    network: QuantizedNetwork,
    state: Setup,
    trajectories: Trajectories,
    checkpoint: CheckpointFile,
    reporter: Reporter,
) -> Fitted:
    """Fit the network in place, from the checkpoint if there is one.

    Raises:
        CalibrationError: it does not converge or is not finite.
    """
    if method.fit == "ranges":
        return Fitted([], None, 0.0)
    if method.fit == "blocks":
        return _blocks(recipe, method, network, state, trajectories, checkpoint, reporter)
    if method.fit == "accuquant" and not (recipe.run.offload and recipe.calibrate.rounding == "learned"):
        return _multi_step(recipe, network, state, trajectories, checkpoint, reporter)
    path = checkpoint.path.with_stem(f"blocks-{checkpoint.path.stem}")
    blocks = CheckpointFile(path, checkpoint.identity, checkpoint.writes, checkpoint.names)
    first = _blocks(recipe, method, network, state, trajectories, blocks, reporter)
    second = _multi_step(recipe, network, state, trajectories, checkpoint, reporter)
    return Fitted(first.stages + second.stages, second.growth, first.seconds + second.seconds)


def _multi_step(
    recipe: Recipe,
    network: QuantizedNetwork,
    state: Setup,
    trajectories: Trajectories,
    checkpoint: CheckpointFile,
    reporter: Reporter,
) -> Fitted:
    problem = Problem(
        state.table,
        state.guidance,
        state.samples,
        trajectories.targets,
        _judging(recipe),
        recipe.calibrate,
        recipe.run.seed,
        state.device,
        state.rollout_batch,
        workers=state.workers,
    )
    if recipe.calibrate.steps == "growth":
        problem = problem.with_growth(network, state.prepared.network)
    fit = Fit(network, problem, plan(recipe.calibrate, state.step_groups), checkpoint)
    saving = recomputed(network.inner) if network.lean else nullcontext()
    with saving, reporter.task("fitting", fit.total_iterations) as advance:
        stages = fit.run(advance)
    growth = None if problem.growth is None else [round(g, 4) for g in problem.growth.tolist()]
    return Fitted(stages, growth, fit.progress.seconds)


def _blocks(
    recipe: Recipe,
    method: Method,
    network: QuantizedNetwork,
    state: Setup,
    trajectories: Trajectories,
    checkpoint: CheckpointFile,
    reporter: Reporter,
) -> Fitted:
    rows, options = _rows(recipe, method, trajectories), BlockOptions(**method.blocks)
    budget = BlockBudget(recipe.blocks.iterations, recipe.blocks.activation_iterations, recipe.blocks.batch)
    room = Room(state.rollout_batch, checkpoint.path.parent if network.lean else None)
    with reporter.task("reconstructing", planned_iterations(network, options, budget)) as advance:
        stages = reconstruct(
            network, trajectories.network, rows, options, budget, recipe.run.seed, checkpoint, advance, room
        )
    seconds = sum(stage.pop("seconds") for stage in stages)  # an artifact holds nothing that differs between two runs
    return Fitted(stages, None, seconds)


def _rows(recipe: Recipe, method: Method, trajectories: Trajectories) -> Rows:
    """A random part of the method's calibration set, or of all pairs."""
    calls, count = trajectories.targets.outputs.shape[:2]
    chosen = torch.ones(calls, count, dtype=torch.bool) if method.choose is None else method.choose(trajectories)
    step, sample = chosen.nonzero(as_tuple=True)
    per_pair = 1 if trajectories.guidance == 1.0 else 2
    order = torch.randperm(len(step), generator=torch.Generator().manual_seed(recipe.run.seed))
    order = order[: max(1, recipe.blocks.rows // per_pair)]
    return rows_of(
        trajectories.table,
        trajectories.targets,
        trajectories.samples,
        trajectories.guidance,
        step[order],
        sample[order],
    )
