"""`dq-toolchain calibrate`: the artifact by the recipe's method, its held-out rollouts, and both on disk."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.data.samples import held_out_seeds
from dq_toolchain.calibrate.finalize import held_out_reference
from dq_toolchain.calibrate.network.channels_last import to_host
from dq_toolchain.calibrate.parts.make import check_decoder, comes_with_parts, write_parts
from dq_toolchain.calibrate.pipeline import Calibrated, calibrated
from dq_toolchain.calibrate.prepare.settings import unread
from dq_toolchain.calibrate.prepare.setup import choose_device
from dq_toolchain.calibrate.work.checkpoint import remove
from dq_toolchain.calibrate.work.workers import ALONE, Workers
from dq_toolchain.toolchain.checks import MINIMUM_SEEDS
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.disk.lock import locked
from dq_toolchain.toolchain.disk.staging import check_places
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.listing import FILES as ARTIFACT_FILES
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.models.loading import Model
from dq_toolchain.toolchain.recipe import effort
from dq_toolchain.toolchain.recipe.sections import Recipe

FOLDER, WORK = "calibration", "calibration.work"
"""Of the artifact and of the checkpoints, in the output folder."""


def workers_of(recipe: Recipe) -> Workers:
    """The processes of this launch (torchrun, `accelerate launch`), which share the samples: the first calls ``calibrate``, the
    others ``assist``. Raises RecipeError: no such device."""
    return Workers.started(choose_device(recipe.run.device).type == "cuda")


def assist(recipe: Recipe, reporter: Reporter, workers: Workers, model: Model | None = None) -> Artifact:
    """What every process but the first does: its share of the calibration. The artifact is the first one's; nothing is written.

    Raises:
        ToolchainError: as ``calibrate``.
    """
    return calibrated(recipe, reporter, recipe.run.out / WORK, workers, model).artifact


def calibrate(
    recipe: Recipe, reporter: Reporter, model: Model | None = None, workers: Workers = ALONE
) -> tuple[Path, Artifact, Reference]:
    """Calibrate and write ``<out>/calibration``. A run that was killed continues from ``<out>/calibration.work``.

    Args:
        model: one in memory, in the place of the one that [model] names.
        workers: the processes that do this together, of which this is the first.
    Returns:
        The artifact's folder, the artifact and its held-out rollouts.
    Raises:
        ToolchainError: bad input, a site that cannot be calibrated, or a folder that cannot be written or is in use.
    """
    folder, work = recipe.run.out / FOLDER, recipe.run.out / WORK
    with locked(recipe.run.out, "calibrate", reporter.warn):  # one lock for all processes of a launch
        check_places(folder, ARTIFACT_FILES)
        check_decoder(recipe)
        if recipe.reference.seeds < MINIMUM_SEEDS:
            reporter.warn(
                f"[reference] seeds is {recipe.reference.seeds}: `validate` passes no device on fewer than {MINIMUM_SEEDS}, "
                "its verdict will be that more are needed"
            )
        own = effort.overruled(recipe)
        if own:
            reporter.warn(f"--effort {recipe.calibrate.effort} leaves what was set as it is: {', '.join(own)}")
        idle = unread(recipe)
        if idle:
            reporter.warn(idle)
        made = calibrated(recipe, reporter, work, workers, model, announce=True)
        parts = {"parts": comes_with_parts(made.context.model)}  # a kill before they are written is noticed by it
        artifact = replace(made.artifact, record={**made.artifact.record, **parts})
        made = replace(made, artifact=artifact)
        artifact.check(folder)  # what loading refuses is found before hours of held-out rollouts, and checkpoints stay
        to_host(made.context.network)
        reference, *others = _held_out(made, recipe, reporter)
        artifact.save(folder, reference, others)
        context, ends = made.context, made.ends
        source, bank, fitted = context.model, context.bank, len(context.samples)
        if model is None:
            _release(context)  # a caller's model stays his
        del made, context
        write_parts(source, recipe, bank, reference.fp32_latents[-1], ends, folder, reporter.warn, fitted=fitted)
        remove(work)
    return folder, artifact, reference


def _release(context: Context) -> None:
    """The float weights of a network that is not used any more: the parts can be larger than it was. What it is like stays."""
    for network in (context.network, context.model.network):
        network.to("meta")
    gc.collect()


def _held_out(made: Calibrated, recipe: Recipe, reporter: Reporter) -> list[Reference]:
    """The held-out rollouts of the calibrated sampler, and of every other one; all from the same noise."""
    artifact, context, seeds = made.artifact, made.context, recipe.reference.seeds
    if context.samplings and artifact.table != context.table:
        names = ", ".join(sampling.name for sampling in context.samplings)
        reporter.warn(
            f"what --method {recipe.calibrate.method} corrects while sampling belongs to {context.steps} steps, guidance "
            f"{context.guidance:g}: at {names} the network is sampled without it"
        )
    runs = [(artifact, context.table), *((artifact.at(each), each.table) for each in context.samplings)]
    batches = -(-seeds // context.host_batch)
    with reporter.task("held-out rollouts", 3 * batches * sum(table.calls for _, table in runs)) as advance:
        return [
            held_out_reference(
                each,
                context.network,
                table,
                context.draw(held_out_seeds(seeds), table),
                batch=context.host_batch,
                advance=advance,
            )
            for each, table in runs
        ]
