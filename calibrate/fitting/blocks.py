"""The phase that reconstructs block after block, on single steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, ClassVar

from dq_toolchain.calibrate.blocks.reconstruct import BlockBudget, BlockOptions, planned_iterations, reconstruct
from dq_toolchain.calibrate.blocks.storage import Storage
from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.fitting.memory import BLOCKS as PER_WEIGHT
from dq_toolchain.calibrate.fitting.memory import LARGEST, OFFLOADED, UNIT
from dq_toolchain.calibrate.fitting.passes import FITTED, GRADIENT
from dq_toolchain.calibrate.fitting.phase import WEIGHTS, FitResult, Needs, Phase, Work
from dq_toolchain.calibrate.fitting.rows import bytes_of_rows, drawn_rows
from dq_toolchain.calibrate.network.activation_memory import ActivationMemory
from dq_toolchain.calibrate.work.constants import constants_of
from dq_toolchain.toolchain.recipe.sections import Recipe

MODULES = (*WEIGHTS, *(f"blocks.{name}" for name in ("adaround", "row_weights", "unit_fit", "options", "unit_problem")))
"""Whose constants decide the result."""


class Blocks(Phase):
    name: ClassVar[str] = "blocks"
    sections: ClassVar[frozenset[str]] = frozenset({"blocks"})
    alone: ClassVar[str] = "reconstructs blocks"

    def run(self, work: Work) -> FitResult:
        context, network, recipe = work.trajectories.context, work.network, work.recipe
        rows, options, budget = drawn_rows(work), BlockOptions(**work.block_options), _budget(recipe)
        folder = work.checkpoint.path.parent if network.low_memory else None
        storage = Storage(context.rollout_batch, folder, context.device)
        with work.reporter.task("reconstructing", planned_iterations(network, options, budget)) as advance:
            stages = reconstruct(
                network, context.network, rows, options, budget, context.seed, work.checkpoint, advance, storage
            )
        seconds = sum(
            stage.pop("seconds") for stage in stages
        )  # an artifact holds nothing that differs between two runs
        return FitResult(stages, None, seconds)

    def needs(self, context: Context, recipe: Recipe, one: ActivationMemory) -> Needs:
        learned, offload = recipe.calibrate.rounding.endswith("learned"), recipe.run.offload
        largest = max(parameter.numel() for parameter in context.network.parameters())
        return Needs(
            per_weight=OFFLOADED if offload else PER_WEIGHT + learned,
            floats=UNIT * LARGEST * largest,
            host=bytes_of_rows(context, recipe) + (0 if offload else recipe.blocks.rows * one.forward),
        )

    def passes(self, context: Context, recipe: Recipe) -> float:
        """Every iteration is one of a unit, and the units together are the network; what feeds them takes as long again."""
        iterations = recipe.blocks.iterations + recipe.blocks.activation_iterations
        per_sample = 1 if context.guidance == 1.0 else 2
        return 2 * GRADIENT * FITTED * iterations * recipe.blocks.batch / per_sample

    def hyper_parameters(
        self, recipe: Recipe, block_options: Mapping[str, Any], step_groups: Iterable[tuple[int, ...]]
    ) -> dict[str, Any]:
        return {
            **asdict(_budget(recipe)),
            "rows": recipe.blocks.rows,
            "options": dict(block_options),
            "constants": constants_of(*MODULES),
        }


BLOCKS = Blocks()


def _budget(recipe: Recipe) -> BlockBudget:
    return BlockBudget(recipe.blocks.iterations, recipe.blocks.activation_iterations, recipe.blocks.batch)
