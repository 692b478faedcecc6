"""Iterations replayed from recorded passes beside the same iterations run kernel by kernel, in turn, on one network.

    python -m benchmarks.graph_speed [--model models/cifar10] [--horizons 1 4] [--samples 16] [--json speed.json]
    python -m benchmarks.graph_speed --dry-run        # on the CPU, tiny, with a stand-in for CUDA graphs: whether it works

An iteration is the gradient of a segment and one step of Adam on all that a fit learns; segments begin at steps of all step
groups in turn. Weights have random errors, trajectories are noise: what is timed does not depend on them. ``apart`` is the
distance between the gradients of the two, and between two runs kernel by kernel, in shares of the gradients' norm.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.common import recipe_of
from dq_toolchain.calibrate.multistep.gradients import Gradient, segment_gradient
from dq_toolchain.calibrate.multistep.objective import robust_loss
from dq_toolchain.calibrate.network import graphs, straight_through
from dq_toolchain.calibrate.network.graphs import NewRecorder, not_replayed, recorder_for, replayed
from dq_toolchain.calibrate.network.tape import Tape
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.calibrate.ranges.quantized import quantize_with
from dq_toolchain.toolchain.sampler.rollout import State
from dq_toolchain.toolchain.simulation import integer_products


@dataclass(frozen=True, kw_only=True)
class Case:
    """``model``: a diffusers folder, None is the embedded model. ``samples``: of an iteration of ``horizon`` steps.

    ``rounds``: timed pairs of iterations.
    """

    model: Path | None = None
    device: str = "cuda"
    horizon: int = 1
    samples: int = 16
    gradient: Gradient = "adjoint"
    steps: int = 20
    rounds: int = 20


@dataclass(frozen=True, kw_only=True)
class Figures:
    """``plain``, ``replayed``: median seconds of an iteration. ``ratio``: median of plain over replayed, pair by pair.

    ``recordings``: passes that were recorded, and ``recording`` the seconds of the iterations that it took.
    ``operations``: that an iteration hands to the device one by one, plain and replayed; None on a GPU, where a profiler says it.
    """

    model: str
    device: str
    gradient: str
    horizon: int
    samples: int
    plain: float
    replayed: float
    ratio: float
    recordings: int
    recording: float
    apart: float
    apart_plain: float
    operations: tuple[int, int] | None


def measure(case: Case, new_recorder: NewRecorder | None = None) -> Figures:
    """One row.

    Args:
        new_recorder: None takes the device's.
    Raises:
        RuntimeError: passes cannot be recorded, or there is no recorder for the device; the text says why.
    """
    recipe = recipe_of({"model": {"path": case.model}, "run": {"device": case.device}, "sampler": {"steps": case.steps},
                        "calibrate": {"samples": case.samples, "rounding": "closed-form+learned"}})  # fmt: skip
    context = setup(recipe)
    device, calls = context.device, context.table.calls
    new_recorder = recorder_for(device) if new_recorder is None else new_recorder
    if new_recorder is None:
        raise RuntimeError(f"passes are not recorded on {device.type}; measure on cuda, or hand over a recorder")
    shape = (len(context.step_groups), len(context.prepared.sites))
    network = quantize_with(context, torch.full(shape, 2.0**-5), torch.zeros(shape, dtype=torch.int32), recipe)
    denoiser = context.denoiser(network, context.samples, network.set_step)
    x = context.samples.start.to(device)
    history = max(len(context.table.a[0]), len(context.table.b[0]))
    start, noise = State((x,) * history, (x,) * history), context.noise(context.samples)
    targets = torch.zeros(case.horizon + 1, *x.shape, device=device)
    learned = [*network.scale_parameters().values(), *network.weight_parameters().values()]
    optimizer = torch.optim.Adam(learned, lr=1e-9, fused=True)
    firsts = [min(group[0], calls - case.horizon) for group in context.step_groups]

    def gradient(first: int) -> None:
        optimizer.zero_grad(set_to_none=False)
        loss = robust_loss(targets, first, case.horizon)
        with network.weights_once():
            segment_gradient(context.table, denoiser, start, first, case.horizon, loss, case.gradient, noise)

    def iteration(first: int) -> None:
        gradient(first)
        optimizer.step()
        network.clamp_offsets()

    def found(first: int) -> Tensor:
        gradient(first)
        return torch.cat([p.grad.flatten() for p in learned if p.grad is not None])

    with replayed(network, new_recorder, _refuse, learns_weights=True):
        made = network.graphs
        assert made is not None

        def once(first: int, replay: bool) -> float:
            with nullcontext() if replay else not_replayed(network):
                return _seconds(lambda: iteration(first), device)

        recording = sum(once(first, True) for _ in range(graphs.WORTH_RECORDING + 1) for first in firsts)
        for first in firsts:
            once(first, False)  # warms up: gradients' memory, libraries
        timed = [firsts[i % len(firsts)] for i in range(case.rounds)]
        pairs = [(once(first, False), once(first, True)) for first in timed]
        replay = found(firsts[0])
        with not_replayed(network):
            plain, again = found(firsts[0]), found(firsts[0])
            operations = _operations(lambda: iteration(firsts[0]))
        operations_replayed = _operations(lambda: iteration(firsts[0]))
        recordings = len(made)
    return Figures(
        model=case.model.name if case.model else "embedded",
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        gradient=case.gradient,
        horizon=case.horizon,
        samples=case.samples,
        plain=statistics.median(plain_seconds for plain_seconds, _ in pairs),
        replayed=statistics.median(replayed_seconds for _, replayed_seconds in pairs),
        ratio=statistics.median(a / b for a, b in pairs),
        recordings=recordings,
        recording=recording,
        apart=float((replay - plain).norm() / plain.norm()),
        apart_plain=float((again - plain).norm() / plain.norm()),
        operations=(operations, operations_replayed) if device.type == "cpu" else None,
    )


def _operations(work: Callable[[], None]) -> int:
    """Views, which cost a device nothing, are not counted. Of the calling thread: a GPU has another for gradients."""
    counting = _Counting()
    with counting:
        work()
    return counting.count


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aliases = [each.alias_info for each in func._schema.returns]
        self.count += not any(alias is not None and not alias.is_write for alias in aliases)
        return func(*args, **(kwargs or {}))


def _refuse(reason: str) -> None:
    raise RuntimeError(reason)


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Inside, a CPU computes as a GPU does where the two differ: no integer products of oneDNN, no scale read by the host.

    Passes are recorded when they are first asked for.
    """
    with (
        patch.object(integer_products, "available", lambda *_: False),
        patch.object(straight_through, "at_hand", lambda _x: False),
        patch.object(graphs, "WORTH_RECORDING", 0),
    ):
        yield


def dry_run(model: Path | None = None) -> list[Figures]:
    """Everything as small as it can be, on the CPU: a single step, and a segment from one step group into the next."""
    with as_on_a_gpu():
        return [
            measure(Case(model=model, device="cpu", horizon=horizon, samples=2, steps=4, rounds=1), Tape)
            for horizon in (1, 2)
        ]


def table_of(rows: list[Figures]) -> Table:
    table = Table("model", "device", "gradient", "steps n", "samples", "plain ms", "replayed ms", "ratio", "recordings",
                  "recording s", "apart", "apart, plain", "operations")  # fmt: skip
    for row in rows:
        table.add_row(row.model, row.device, row.gradient, str(row.horizon), str(row.samples), f"{1e3 * row.plain:.2f}",
                      f"{1e3 * row.replayed:.2f}", f"{row.ratio:.2f}", str(row.recordings), f"{row.recording:.2f}",
                      f"{row.apart:.1e}", f"{row.apart_plain:.1e}",
                      "" if row.operations is None else f"{row.operations[0]}, {row.operations[1]}")  # fmt: skip
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="diffusers folder; default: the embedded model")
    parser.add_argument("--horizons", nargs="+", type=int, default=[1, 4], help="steps n of a segment")
    parser.add_argument("--samples", type=int, default=16, help="of an iteration with n = 1; otherwise half of them")
    parser.add_argument("--rounds", type=int, default=20, help="timed pairs")
    parser.add_argument("--dry-run", action="store_true", help="tiny, on the CPU")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = dry_run(arguments.model) if arguments.dry_run else [
        measure(Case(model=arguments.model, horizon=n, rounds=arguments.rounds,
                     samples=arguments.samples if n == 1 else max(1, arguments.samples // 2)))
        for n in arguments.horizons
    ]  # fmt: skip
    Console(width=150).print(table_of(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
