"""How long a calibration takes, said before its work starts: the passes that the recipe asks for, times one that is measured.

A pass is one FP32 call of the network for one sample, without gradient, both halves of guidance included.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import get_args

import torch

from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.fitting.phase import phases_of
from dq_toolchain.calibrate.methods import effective
from dq_toolchain.calibrate.methods.base import Method
from dq_toolchain.toolchain.console.progress import Reporter, roughly
from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.recipe.sections import Effort, Recipe

OBSERVED = 1.2
"""A pass in which every site is observed, in passes. Measured on the embedded model (docs/RESULTS.md, "Effort")."""


def passes(recipe: Recipe, method: Method, context: Context) -> dict[str, float]:
    """Part of the calibration -> passes that this process does.

    Args:
        recipe: effective. context: of that recipe, or of one that differs in effort only.
    """
    each = recipe.calibrate.samples * context.table.calls / context.workers.count
    found = {"FP32 rollouts": OBSERVED * each if method.choose is None else (1 + OBSERVED) * each}
    phases = phases_of(method.fit, recipe)
    if phases:
        found["fit"] = sum(phase.passes(context, recipe) for phase in phases) / context.workers.count
    if recipe.quantize.outputs == "range":
        found["ranges of outputs"] = each
    calls = context.table.calls + sum(sampling.table.calls for sampling in context.samplings)
    return found | {"held-out rollouts": 3.0 * recipe.reference.seeds * calls}


def say_duration(context: Context, recipe: Recipe, method: Method, reporter: Reporter) -> None:
    """Say how many minutes the calibration takes on this machine, by a pass measured now, and what other efforts take.

    Args:
        recipe: effective.
    """
    if reporter.quiet:
        return
    one = seconds_per_pass(context)
    parts = {part: one * count for part, count in passes(recipe, method, context).items()}
    others = [
        f"{effort} takes about {roughly(one * sum(found.values()))}"
        for effort, found in _others(recipe, method, context).items()
    ]
    also = f"; {', '.join(others)}" if others else ""
    reporter.say(
        f"--effort {recipe.calibrate.effort}: about {roughly(sum(parts.values()))} here "
        f"({', '.join(f'{part} {roughly(seconds)}' for part, seconds in parts.items())}), by one network pass of "
        f"{1000 * one:.3g} ms a sample{also}"
    )


def _others(recipe: Recipe, method: Method, context: Context) -> dict[Effort, dict[str, float]]:
    """The passes of the other efforts, without those that refuse what the user set: rounding that they have no iterations for."""
    found = {}
    for effort in get_args(Effort):
        if effort != recipe.calibrate.effort:
            with suppress(RecipeError):
                found[effort] = passes(_with_effort(recipe, effort), method, context)
    return found


def _with_effort(recipe: Recipe, effort: Effort) -> Recipe:
    return effective(recipe.model_copy(update={"calibrate": recipe.calibrate.model_copy(update={"effort": effort})}))


@torch.no_grad()
def seconds_per_pass(context: Context) -> float:
    """Seconds of one FP32 call for one sample, in a whole batch of rollouts."""
    for count in (1, context.rollout_batch):  # what one-time work there is comes before the clock starts
        part = context.samples.select(slice(0, count))
        network = context.denoiser(context.network, part)
        x = part.start.to(context.device) * context.table.input_scale[0]
        begin = time.perf_counter()
        network(x, 0).cpu()  # also waits for a GPU
    return (time.perf_counter() - begin) / len(x)
