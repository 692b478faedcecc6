"""The work of a multi-step fit in passes: FP32 calls of the network for one sample, without gradient.

What other kinds of passes cost in them was measured on the embedded model (docs/RESULTS.md, "Effort").
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from dq_toolchain.calibrate.multistep.fit import interval_of
from dq_toolchain.calibrate.multistep.growth import MEASURED
from dq_toolchain.calibrate.multistep.problem import GROWTH_SAMPLES
from dq_toolchain.calibrate.multistep.stages import Stage
from dq_toolchain.toolchain.console.progress import roughly

GRADIENT = 3
"""A pass with its gradient: forward, and twice as much back."""
FITTED = 1.17
"""Of each of them, what fake quantization adds."""
ENOUGH = 10
"""Iterations after which the pace of a fit is known."""
WORTH_SAYING = 60.0
"""Seconds."""


def iteration_passes(stage: Stage, batch: int) -> float:
    """One iteration of a stage, by the passes that its gradient takes (``gradients``)."""
    steps = GRADIENT * stage.horizon if stage.gradient == "full" else (GRADIENT + 1) * stage.horizon - 1
    rolled_in = (stage.window[0] + stage.window[1] - stage.horizon) / 2 if stage.inherited else 0.0
    return stage.trajectories(batch) * (FITTED * steps + rolled_in)


def validations(stage: Stage) -> int:
    """Runs of the sampler that validate a stage's iterates."""
    return math.ceil(stage.iterations / interval_of(stage))


def stage_passes(stages: Sequence[Stage], batch: int, validating: int) -> list[float]:
    """Every stage: its iterations, and the runs of the sampler that validate iterates.

    Args:
        validating: passes of one such run.
    """
    found = []
    for index, stage in enumerate(stages):
        runs = validations(stage) + (index == 0)  # the start; later stages start from what was validated
        found.append(stage.iterations * iteration_passes(stage, batch) + runs * validating)
    return found


def growth_passes(calls: int) -> float:
    """Measuring the growth of errors: from each measured step to the end."""
    return GROWTH_SAMPLES * min(MEASURED, calls) * (calls + 1) / 2


def paced(
    stages: Sequence[Stage], batch: int, validating: int, advance: Callable[..., None], say: Callable[[str], None]
) -> Callable[..., None]:
    """``advance`` of a fit that also says how long the rest takes, by its first iterations in this process."""
    cost = [iteration_passes(stage, batch) for stage in stages for _ in range(stage.iterations)]
    share = sum(stage_passes(stages, batch, validating)) / max(sum(cost), 1.0)
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
            if left >= WORTH_SAYING:
                say(f"fitting: about {roughly(left)} left, by its first {ENOUGH} iterations")

    return counted
