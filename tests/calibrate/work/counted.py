"""Counts what the host waits for in every loop of a calibration, on a device that is not the host; prints it as JSON.

In a process of its own, for the pretended device: ``main``. On a GPU: ``counted(torch.device("cuda"), folder)``.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from dq_toolchain.calibrate.blocks.options import BlockOptions
from dq_toolchain.calibrate.blocks.reconstruct import BlockBudget, reconstruct
from dq_toolchain.calibrate.blocks.unit_fit import UnitFit
from dq_toolchain.calibrate.data.trajectories import Trajectories
from dq_toolchain.calibrate.finalize import finalize
from dq_toolchain.calibrate.fitting.blocks import _rows
from dq_toolchain.calibrate.fitting.phase import Work
from dq_toolchain.calibrate.methods import names, resolve
from dq_toolchain.calibrate.multistep.fit import MultiStepFit
from dq_toolchain.calibrate.multistep.problem import Problem
from dq_toolchain.calibrate.multistep.stages import plan
from dq_toolchain.calibrate.network.insert import QuantizedNetwork
from dq_toolchain.calibrate.prepare import setup as preparing
from dq_toolchain.calibrate.ranges.measure import observe_chosen, shared_rollouts
from dq_toolchain.calibrate.ranges.quantized import quantize_with
from dq_toolchain.calibrate.work.checkpoint import CheckpointFile
from dq_toolchain.calibrate.work.host_reads import HostReads, Place
from tests.calibrate.conftest import QUIET, Measured, measured
from tests.tiny import write_tiny_model

STEPS = 4
Laps = list[Counter[Place]]
BLOCKS = {
    "weights, activations": BlockOptions(),
    "weights aligned": BlockOptions(temporal=True, aligned=True),
    "joint": BlockOptions(joint=True, inner=0.8, drop=0.5),
    "joint aligned": BlockOptions(joint=True, aligned=True),
}


@dataclass
class Found:
    """Laps by what was going on in them."""

    laps: dict[str, Laps] = field(default_factory=dict)

    @contextmanager
    def one(self, name: str, counter: HostReads) -> Iterator[None]:
        """What is inside is one lap."""
        counter.lap()
        yield
        self.laps.setdefault(name, []).append(counter.lap())


class Scene:
    """A tiny model on a device, measured."""

    def __init__(self, device: torch.device, folder: Path) -> None:
        preparing.choose_device = lambda _name: device
        self.folder, self.device, self.found = folder, device, Found()
        model = write_tiny_model(folder)
        few = {"samples": 8, "batch": 4, "warmup": 3, "iterations": 2, "settling": 2, "horizon": 2, "group_iterations": 2}
        self.ready: Measured = measured(
            model,
            folder,
            sampler={"steps": STEPS, "guidance": 2.0},
            quantize={"step_groups": 2},
            calibrate=few,
            blocks={"rows": 16, "batch": 4},
        )

    def network(self) -> QuantizedNetwork:
        ready = self.ready
        return quantize_with(ready.context, ready.scale, ready.zero_point, ready.recipe)

    def fit(self, gradient: str, **calibrate: Any) -> None:
        ready = self.ready
        settings = ready.recipe.calibrate.model_copy(update={"gradient": gradient, **calibrate})
        targets = ready.trajectories.targets
        problem = Problem(context=ready.context, targets=targets, validation=1, settings=settings)
        checkpoint = CheckpointFile(self.folder / f"{gradient}{len(calibrate)}.safetensors", "", writes=False)
        fit = MultiStepFit(self.network(), problem, plan(settings, ready.context.step_groups), checkpoint)
        validate = fit._validation_error
        with HostReads() as counter:

            def validated() -> float:
                with self.found.one("validation", counter):
                    return validate()

            def advance(n: int = 1, note: str = "") -> None:
                self.found.laps.setdefault(f"fit {gradient}", []).append(counter.lap())

            fit._validation_error = validated  # type: ignore[method-assign]
            fit.run(advance)

    def growth(self) -> None:
        ready, network = self.ready, self.network()
        problem = Problem(
            context=ready.context, targets=ready.trajectories.targets, validation=1, settings=ready.recipe.calibrate
        )
        with HostReads() as counter, self.found.one("growth", counter):
            problem.with_growth(network)

    def blocks(self, name: str) -> None:
        ready, network = self.ready, self.network()
        checkpoint = CheckpointFile(self.folder / f"{name}.safetensors", "", writes=False)
        work = Work(
            recipe=ready.recipe,
            network=network,
            trajectories=ready.trajectories,
            chosen=None,
            block_options={},
            checkpoint=checkpoint,
            reporter=QUIET,
        )
        run = UnitFit.run
        with HostReads() as counter:

            def fitted(self_: UnitFit, *arguments: Any) -> None:
                self.found.laps.setdefault("blocks: between units", []).append(counter.lap())
                run(self_, *arguments)

            def advance(n: int = 1, note: str = "") -> None:
                self.found.laps.setdefault(f"blocks {name}", []).append(counter.lap())

            UnitFit.run = fitted  # type: ignore[method-assign]
            try:
                reconstruct(
                    network,
                    ready.context.network,
                    _rows(work),
                    BLOCKS[name],
                    BlockBudget(iterations=2, activation_iterations=1, batch=4),
                    0,
                    checkpoint,
                    advance,
                )
            finally:
                UnitFit.run = run  # type: ignore[method-assign]

    def ranges(self) -> None:
        ready = self.ready
        with HostReads() as counter:
            from dq_toolchain.calibrate.ranges.measure import observe_rollouts

            def advance(n: int = 1) -> None:
                self.found.laps.setdefault("rollouts, ranges observed", []).append(counter.lap())

            observe_rollouts(ready.context, advance)
            self.found.laps["after rollouts, ranges observed"] = [counter.lap()]

            def advance_plain(n: int = 1) -> None:
                self.found.laps.setdefault("rollouts", []).append(counter.lap())

            shared_rollouts(ready.context, None, advance_plain)
            self.found.laps["after rollouts"] = [counter.lap()]

            def advance_chosen(n: int = 1) -> None:
                self.found.laps.setdefault("ranges of known rollouts", []).append(counter.lap())

            observe_chosen(ready.context, ready.trajectories.targets, None, advance_chosen)
            self.found.laps["after ranges of known rollouts"] = [counter.lap()]

    def methods(self) -> None:
        ready = self.ready
        artifact = finalize(self.network(), ready.context, {})
        for name in names():
            method = resolve(name)
            for finish in method.finish:
                with HostReads() as counter, self.found.one(f"finish of {name}", counter):
                    finish(artifact, ready.trajectories)
            if method.choose is not None:
                with HostReads() as counter, self.found.one(f"choice of {name}", counter):
                    method.choose(ready.trajectories)


def counted(device: torch.device, folder: Path) -> dict[str, Laps]:
    scene = Scene(device, folder)
    for gradient in ("adjoint", "surrogate", "full"):
        scene.fit(gradient)
    scene.growth()
    for name in BLOCKS:
        scene.blocks(name)
    scene.ranges()
    scene.methods()
    return scene.found.laps


def as_json(laps: dict[str, Laps]) -> str:
    return json.dumps(
        {
            name: [[[p.kind, p.where, p.name, n] for p, n in sorted(lap.items())] for lap in every]
            for name, every in laps.items()
        }
    )


def main() -> None:
    from tests.pretend_gpu import install, leave

    torch.set_num_threads(1)
    device = install()
    print(as_json(counted(device, Path(sys.argv[1]))))
    leave(0)
