"""How long a calibration takes, said before its work starts: the passes that the recipe asks for, times one that is measured.

A pass is one FP32 call of the network for one sample, without gradient, both halves of guidance included. What other kinds of
passes cost in it was measured on the embedded model (``python -m benchmarks.effort --ratios``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import get_args

import torch

from dq_toolchain.calibrate.methods import effective
from dq_toolchain.calibrate.methods.base import Method
from dq_toolchain.calibrate.multistep.fit import JUDGED, LEAST_INTERVAL
from dq_toolchain.calibrate.multistep.problem import GROWTH_SAMPLES
from dq_toolchain.calibrate.multistep.stages import Stage, plan
from dq_toolchain.calibrate.prepare.setup import Setup
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.recipe.sections import CalibrateSection, Effort, Recipe
from dq_toolchain.toolchain.sampler.denoiser import Denoiser

OBSERVED = 1.5
"""A pass in which every site is observed."""
FITTED = 1.17
"""A pass of the fit: fake quantization comes on top. With its gradient three of them, forward and twice as much back."""
ENOUGH = 10
"""Iterations after which the pace of a fit is known."""

Passes = dict[str, float]


def passes(recipe: Recipe, method: Method, state: Setup) -> Passes:
    """Phase of the calibration -> passes that this process does.

    Args:
        recipe: effective. state: of that recipe, or of one that differs in effort only.
    """
    c, calls = recipe.calibrate, state.table.calls
    found = {"FP32 rollouts": OBSERVED * c.samples * calls / state.workers.count}
    if method.choose is not None:
        found["FP32 rollouts"] += c.samples * calls / state.workers.count
    fit = 0.0
    if "blocks" in method.fit or ("accuquant" in method.fit and recipe.run.offload and c.rounding == "learned"):
        # every iteration is one of a unit, and the units together are the network
        fit += 3 * FITTED * (recipe.blocks.iterations + recipe.blocks.activation_iterations) * recipe.blocks.batch
    if "accuquant" in method.fit:
        fit += sum(fit_passes(c, plan(c, state.step_groups), calls))
        fit += GROWTH_SAMPLES * calls * min(10, calls) / 2 if c.steps == "growth" else 0.0
    if fit:
        found["fit"] = fit / state.workers.count
    return found | {"held-out rollouts": 3.0 * recipe.reference.seeds * calls}


def fit_passes(settings: CalibrateSection, stages: Sequence[Stage], calls: int) -> list[float]:
    """Passes of every stage of a multi-step fit: its iterations, and the runs of the sampler that judge it."""
    judging = max(1, settings.samples // 8) * calls
    found = []
    for stage in stages:
        judged = stage.iterations // max(LEAST_INTERVAL, stage.iterations // JUDGED) + 1
        found.append(stage.iterations * iteration_passes(stage, settings.batch) + judged * judging)
    return found


def iteration_passes(stage: Stage, batch: int) -> float:
    """Passes of one iteration of a stage."""
    steps = 3 * stage.horizon if stage.gradient == "full" else 4 * stage.horizon - 1
    rolled_in = (stage.window[0] + stage.window[1] - stage.horizon) / 2 if stage.inherited else 0.0
    return stage.trajectories(batch) * (FITTED * steps + rolled_in)


def say_duration(state: Setup, recipe: Recipe, method: Method, reporter: Reporter) -> None:
    """Say how many minutes the calibration takes on this machine, by a pass measured now, and what other efforts take.

    Args:
        recipe: effective.
    """
    if reporter.quiet:
        return
    one = seconds_per_pass(state)
    parts = {phase: one * count for phase, count in passes(recipe, method, state).items()}
    others = {
        effort: one * sum(passes(_with_effort(recipe, effort), method, state).values())
        for effort in get_args(Effort)
        if effort != recipe.calibrate.effort
    }
    reporter.say(
        f"--effort {recipe.calibrate.effort}: about {spoken(sum(parts.values()))} here "
        f"({', '.join(f'{phase} {spoken(seconds)}' for phase, seconds in parts.items())}), by one network pass of "
        f"{1000 * one:.3g} ms a sample; {', '.join(f'{name} takes about {spoken(s)}' for name, s in others.items())}"
    )


def _with_effort(recipe: Recipe, effort: Effort) -> Recipe:
    return effective(recipe.model_copy(update={"calibrate": recipe.calibrate.model_copy(update={"effort": effort})}))


@torch.no_grad()
def seconds_per_pass(state: Setup) -> float:
    """Seconds of one FP32 call for one sample, of a whole batch of rollouts, the second of two."""
    part = state.samples.select(slice(0, state.rollout_batch))
    network = Denoiser(state.prepared.network, state.table, part.conditioning.to(state.device), state.guidance)
    x = part.start.to(state.device) * state.table.input_scale[0]
    network(x, 0)  # allocates, and plans its products
    begin = time.perf_counter()
    network(x, 0).cpu()  # also waits for a GPU
    return (time.perf_counter() - begin) / len(x)


def spoken(seconds: float) -> str:
    """Minutes or hours, no more exact than the estimate: "40 s", "6 min", "2.5 h"."""
    if seconds < 90:
        return f"{max(1, round(seconds / 10) * 10 if seconds >= 10 else round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def paced(
    stages: Sequence[Stage], settings: CalibrateSection, calls: int, advance: Callable[..., None], reporter: Reporter
) -> Callable[..., None]:
    """``advance`` of a multi-step fit that also says how long the rest takes, by its first iterations in this process."""
    cost = [iteration_passes(stage, settings.batch) for stage in stages for _ in range(stage.iterations)]
    total = sum(fit_passes(settings, stages, calls))
    share = total / max(sum(cost), 1e-9)  # with what judges the iterates
    done, seen, begin, spent = 0, 0, 0.0, 0.0

    def counted(n: int = 1, note: str = "") -> None:
        nonlocal done, seen, begin, spent
        advance(n, note)
        done += n
        if not note:  # iterations of an earlier run
            return
        seen += 1
        if seen == 1:
            begin = time.perf_counter()
            return
        spent += cost[done - 1]
        if seen == ENOUGH:
            left = (time.perf_counter() - begin) / spent * sum(cost[done:]) * share
            if left >= 60:
                reporter.say(f"fitting: about {spoken(left)} left, by its first {ENOUGH} iterations")

    return counted
