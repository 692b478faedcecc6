"""Seconds and memory of a fit's iterations, taken from a real fit: its own stages, its own order of work."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from benchmarks.common import NoCheckpoint
from dq_toolchain.backends.common.machine import peak_memory
from dq_toolchain.calibrate.multistep.fit import MultiStepFit
from dq_toolchain.calibrate.multistep.problem import Problem
from dq_toolchain.calibrate.multistep.stages import Stage
from dq_toolchain.calibrate.network.insert import QuantizedNetwork

UNTIMED = 3
"""Iterations before the clock starts: they allocate, choose algorithms, compile and record."""
Moment = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Iterations:
    """``first``: seconds of the first iteration; ``seconds``: mean of the timed ones; memory in GB of 1e9 bytes."""

    first: float
    seconds: float
    allocated_gb: float
    reserved_gb: float


class Unvalidated(Problem):
    """Validation is a run of the sampler, which is measured by itself."""

    def validation_error(self, network: QuantizedNetwork) -> float:
        return 0.0


@dataclass
class Watch:
    """What a fit tells after each iteration. ``on_timed`` is called when the clock starts."""

    device: torch.device
    timed: int
    on_timed: Moment = lambda: None
    count: int = 0
    begin: float = field(default_factory=time.perf_counter)
    first: float = 0.0
    seconds: float = 0.0

    def __call__(self, n: int = 1, note: str = "") -> None:
        self.count += 1
        if self.count == 1:
            self.first = self._since()
        elif self.count == UNTIMED:
            self._since()
            self.on_timed()
            self.begin = time.perf_counter()
        elif self.count == UNTIMED + self.timed:
            self.seconds = self._since() / self.timed

    def _since(self) -> float:
        synchronize(self.device)
        return time.perf_counter() - self.begin


def fitted(problem: Problem, network: QuantizedNetwork, stage: Stage, watch: Watch) -> Iterations:
    """Run a stage of UNTIMED and the watch's timed iterations.

    Args:
        problem: unvalidated. stage: with that number of iterations.
    """
    watch.begin = time.perf_counter()
    MultiStepFit(network, problem, (stage,), NoCheckpoint(), print).run(watch)
    allocated, reserved = peak(watch.device)
    return Iterations(
        first=watch.first, seconds=watch.seconds, allocated_gb=allocated / 1e9, reserved_gb=reserved / 1e9
    )


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> None:
    """From here on ``peak`` counts, and what earlier work left in the allocator does not."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> tuple[int, int]:
    """The most bytes in use and held since the last reset; on a CPU the process's largest size, which no reset lowers."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
    return peak_memory(), peak_memory()
