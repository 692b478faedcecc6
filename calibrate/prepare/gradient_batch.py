"""A fit goes on in the parts that it began in: sums of float32 depend on them, and the memory that is free may have changed."""

from __future__ import annotations

from dataclasses import replace

import torch

from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.work.checkpoint import CheckpointFile
from dq_toolchain.toolchain.console.progress import Reporter

WHOLE = 2**62
"""For all samples of an iteration at once, where processes agree on a number."""


def as_it_began(context: Context, checkpoint: CheckpointFile, reporter: Reporter) -> Context:
    """The context with the ``gradient_batch`` that this fit began with, the same in all processes.

    Args:
        context: as ``check_memory`` left it. checkpoint: of this and nothing else.
    """
    if context.activation_memory is None:
        return context
    own = WHOLE if context.gradient_batch is None else context.gradient_batch
    now = -int(context.workers.largest(torch.tensor(-own, dtype=torch.int64)))
    saved = checkpoint.load()
    if saved is None:
        checkpoint.save({}, {"gradient_batch": now})
    began = now if saved is None else int(saved[1]["gradient_batch"])
    if began > now:
        parts = "whole iterations" if began == WHOLE else f"parts of {began} samples a step"
        reporter.warn(
            f"the fit goes on in {parts}, as it began, so that its result is the same; what is free of memory now is enough for "
            f"{now}: end what else runs"
        )
    return replace(context, gradient_batch=None if began == WHOLE else began)
