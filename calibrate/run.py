"""`dq-toolchain calibrate`: the artifact by the recipe's method, its held-out rollouts, and both on disk."""

from __future__ import annotations

from pathlib import Path

from dq_toolchain.calibrate.data.samples import held_out_seeds
from dq_toolchain.calibrate.finalize import held_out_reference
from dq_toolchain.calibrate.pipeline import calibrated
from dq_toolchain.calibrate.prepare.setup import choose_device
from dq_toolchain.calibrate.work.checkpoint import remove
from dq_toolchain.calibrate.work.workers import Workers
from dq_toolchain.toolchain.checks import MINIMUM_SEEDS
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.disk.lock import locked
from dq_toolchain.toolchain.disk.staging import check_places
from dq_toolchain.toolchain.formats.artifact import FILES as ARTIFACT_FILES
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.recipe.sections import Recipe


def calibrate(recipe: Recipe, reporter: Reporter) -> tuple[Path, Artifact, Reference]:
    """Calibrate and write ``<out>/calibration``. A run that was killed continues from ``<out>/calibration.work``.

    Started several times by torchrun or `accelerate launch`, the processes share the samples; the first goes on to the
    held-out rollouts and writes, the others end here.

    Returns:
        The artifact's folder, the artifact and its held-out rollouts.
    Raises:
        ToolchainError: bad input, a site that cannot be calibrated, or a folder that cannot be written or is in use.
    """
    folder = recipe.run.out / "calibration"
    work = recipe.run.out / "calibration.work"
    workers = Workers.started(choose_device(recipe.run.device).type == "cuda")
    if not workers.is_first:
        calibrated(recipe, reporter, work, workers)
        raise SystemExit(0)
    with locked(recipe.run.out, "calibrate", reporter.warn):  # one lock for all processes of a launch
        check_places(folder, ARTIFACT_FILES)
        if recipe.reference.seeds < MINIMUM_SEEDS:
            reporter.warn(
                f"[reference] seeds is {recipe.reference.seeds}: `validate` passes no device on fewer than {MINIMUM_SEEDS}, "
                "its verdict will be that more are needed"
            )
        made = calibrated(recipe, reporter, work, workers)
        artifact, context = made.artifact, made.context
        context.network.cpu()
        held_out = context.draw(held_out_seeds(recipe.reference.seeds))
        batch = context.rollout_batch
        batches = -(-len(held_out) // batch)
        with reporter.task("held-out rollouts", 3 * batches * context.table.calls) as advance:
            reference = held_out_reference(
                artifact, context.network, context.table, held_out, batch=batch, advance=advance
            )
        artifact.save(folder, reference)
        remove(work)
    return folder, artifact, reference
