"""The network evaluations that a phase of single steps works on."""

from __future__ import annotations

import torch

from dq_toolchain.calibrate.blocks.evaluations import Evaluations, evaluations_of
from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.fitting.phase import Work
from dq_toolchain.toolchain.recipe.sections import Recipe


def drawn_rows(work: Work) -> Evaluations:
    """``[blocks] rows`` of them: a random part of the method's calibration set, or of all pairs."""
    run = work.trajectories
    context, targets = run.context, run.targets
    chosen = torch.ones(targets.outputs.shape[:2], dtype=torch.bool) if work.chosen is None else work.chosen
    step, sample = chosen.nonzero(as_tuple=True)
    per_pair = 1 if context.guidance == 1.0 else 2
    order = torch.randperm(len(step), generator=torch.Generator().manual_seed(context.seed))
    order = order[: max(1, work.recipe.blocks.rows // per_pair)]
    return evaluations_of(context.table, targets, context.samples, context.guidance, step[order], sample[order])


def bytes_of_rows(context: Context, recipe: Recipe) -> int:
    """Of ``drawn_rows``, on the host: their latents. Conditioning is the samples' own."""
    return recipe.blocks.rows * context.samples.start[0].nbytes
