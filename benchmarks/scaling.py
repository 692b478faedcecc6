"""Memory and time of one calibration iteration: by the denoising steps it simulates, and by the size of the network.

    python -m benchmarks.scaling [--json scaling.json]
    python -m benchmarks.scaling --sizes --horizons 1 4        # the embedded model alone
    python -m benchmarks.sd15_chain --folder sd15 && python -m benchmarks.scaling --model sd15/model \\
        --conditioning sd15/model/rows.safetensors --samples 4 --sizes        # Stable Diffusion 1.5's size; for a GPU

An iteration is the gradient of a segment and one step of Adam on all that a fit learns. Every row has a process of its own.
"Iteration" counts torch's own allocator events, what the iteration needs beyond what lives on between two of them;
"process" is the largest resident size, libraries and the fit's copies of the network included. On a GPU, which is taken if
torch sees one, both are of its memory. Sizes have random weights.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import torch
from diffusers import DDIMScheduler
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from benchmarks.common import recipe_of
from benchmarks.executorch_speed import random_unet
from dq_toolchain.backends.common.machine import peak_memory
from dq_toolchain.calibrate.multistep.gradients import Gradient, segment_gradient
from dq_toolchain.calibrate.multistep.objective import robust_loss
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.calibrate.ranges.quantized import quantize_with
from dq_toolchain.toolchain.sampler.denoiser import Denoiser
from dq_toolchain.toolchain.sampler.rollout import State

HORIZONS = (1, 2, 5, 10, 20)
SAMPLES = 16
"""Trajectories of an iteration; in a fit, and hence by size, a segment of several steps takes half of them."""
SIZES = {
    "1m": (32, 64, 64),
    "3m": (64, 96, 96),
    "10m": (96, 192, 192),
    "35m": (192, 352, 352),
    "100m": (320, 608, 608),
}
"""Channels of a UNet at 32x32, by its parameters in millions."""
SEGMENT = 4


@dataclass(frozen=True)
class Case:
    """One row: ``model`` is a diffusers folder, None the embedded model; ``samples`` trajectories of ``horizon`` steps.

    ``conditioning``: a file of rows, None for what the model brings.
    """

    name: str
    model: Path | None
    gradient: Gradient
    horizon: int
    samples: int
    repeats: int
    conditioning: Path | None = None


@dataclass(frozen=True)
class Figures:
    """``seconds``: median of the repeats. Memory in bytes, of the device."""

    name: str
    device: str
    gradient: str
    horizon: int
    samples: int
    parameters: int
    threads: int
    seconds: float
    iteration_bytes: int
    process_bytes: int


def measure(case: Case) -> Figures:
    """One row, in this process."""
    recipe = recipe_of({"model": {"path": case.model}, "conditioning": {"file": case.conditioning},
                        "calibrate": {"samples": case.samples, "rounding": "closed-form+learned"}})  # fmt: skip
    context = setup(recipe)
    device, noise = context.device, context.samples.start.to(context.device)
    shape = (len(context.step_groups), len(context.prepared.sites))
    network = quantize_with(context, torch.full(shape, 2.0**-5), torch.zeros(shape, dtype=torch.int32), recipe)
    denoiser = Denoiser(
        network, context.table, context.samples.conditioning.to(device), context.guidance, network.set_step
    )
    start, targets = State((noise,)), torch.zeros(case.horizon + 1, *noise.shape, device=device)
    learned = [*network.scale_parameters().values(), *network.weight_parameters().values()]
    optimizer = torch.optim.Adam(learned, lr=1e-6)

    def iteration() -> None:
        optimizer.zero_grad(set_to_none=False)
        with network.weights_once():
            loss = robust_loss(targets, 0, case.horizon)
            segment_gradient(context.table, denoiser, start, 0, case.horizon, loss, case.gradient)
        optimizer.step()

    iteration()  # gradients and Adam's moments exist from here on, as they do throughout a fit
    seconds = _seconds(iteration, case.repeats, device)
    process = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else peak_memory()
    parameters = sum(p.numel() for p in context.model.network.parameters())
    needed = _peak_on_gpu(iteration, device) if device.type == "cuda" else peak_bytes(iteration)
    return Figures(case.name, device.type, case.gradient, case.horizon, case.samples, parameters, torch.get_num_threads(),
                   seconds, needed, process)  # fmt: skip


def _seconds(iteration: Callable[[], None], repeats: int, device: torch.device) -> float:
    found = []
    for _ in range(repeats):
        begin = time.perf_counter()
        iteration()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - begin)
    return statistics.median(found)


def _peak_on_gpu(iteration: Callable[[], object], device: torch.device) -> int:
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    iteration()
    return torch.cuda.max_memory_allocated(device) - before


def peak_bytes(iteration: Callable[[], object]) -> int:
    """Highest sum of live allocations during one iteration, beyond what was live before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        iteration()
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def in_its_own_process(case: Case) -> Figures:
    """A process's largest size never falls, so that a second row would show the first."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, case).result()


def of_size(name: str, repeats: int) -> list[Figures]:
    """A single step and a segment of a network of this size, with the default gradient."""
    with tempfile.TemporaryDirectory() as folder:
        random_unet(SIZES[name]).save_pretrained(Path(folder, "unet"))  # type: ignore[operator]
        DDIMScheduler(clip_sample=False).save_pretrained(Path(folder, "scheduler"))
        cases = [(1, SAMPLES), (SEGMENT, SAMPLES // 2)]
        return [in_its_own_process(Case(name, Path(folder), "adjoint", *case, repeats)) for case in cases]


def table_of(rows: list[Figures], title: str) -> Table:
    table = Table(
        "model",
        "device",
        "parameters",
        "gradient",
        "steps n",
        "samples",
        "s",
        "iteration MiB",
        "process MiB",
        title=title,
    )
    for row in rows:
        table.add_row(
            row.name,
            row.device,
            f"{row.parameters / 1e6:.1f} M",
            row.gradient,
            str(row.horizon),
            str(row.samples),
            f"{row.seconds:.3g}",
            f"{row.iteration_bytes / 2**20:.1f}",
            f"{row.process_bytes / 2**20:.0f}",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=Path, help="diffusers folder for the rows by steps; default: the embedded model"
    )
    parser.add_argument(
        "--conditioning", type=Path, help="the model's conditioning, as [conditioning] file of a recipe"
    )
    parser.add_argument(
        "--samples", type=int, default=SAMPLES, help="trajectories of an iteration, for the rows by steps"
    )
    parser.add_argument("--gradients", nargs="+", choices=get_args(Gradient), default=list(get_args(Gradient)))
    parser.add_argument("--horizons", nargs="*", type=int, default=HORIZONS, help="steps n; none: leave these rows out")
    parser.add_argument(
        "--sizes", nargs="*", default=list(SIZES), help=f"of {', '.join(SIZES)}; none: leave these rows out"
    )
    parser.add_argument("--repeats", type=int, default=5, help="timed iterations per row")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.sizes) - set(SIZES)):
        parser.error(f"--sizes: got {unknown[0]!r}, allowed are {', '.join(SIZES)}")
    name, console = arguments.model.name if arguments.model else "embedded", Console(width=120)
    cases = [Case(name, arguments.model, g, n, arguments.samples, arguments.repeats, arguments.conditioning)
             for g in arguments.gradients for n in arguments.horizons]  # fmt: skip
    by_steps = [in_its_own_process(case) for case in cases]
    if by_steps:
        console.print(table_of(by_steps, "By simulated steps"))
    by_size = [row for size in arguments.sizes for row in of_size(size, arguments.repeats)]
    if by_size:
        console.print(table_of(by_size, "By size of the network"))
    if arguments.json:
        rows = {"by_steps": by_steps, "by_size": by_size}
        arguments.json.write_text(json.dumps({k: [asdict(r) for r in v] for k, v in rows.items()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
