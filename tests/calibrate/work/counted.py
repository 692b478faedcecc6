"""Counts what the host waits for in every loop of a calibration, on a device that is not the host; prints it as JSON.

In a process of its own, for the pretended device: ``main``. On a GPU: ``counted(torch.device("cuda"), folder)``.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from torch import Tensor

from dq_toolchain.calibrate.blocks.options import BlockOptions
from dq_toolchain.calibrate.blocks.reconstruct import BlockBudget, reconstruct
from dq_toolchain.calibrate.blocks.storage import Storage
from dq_toolchain.calibrate.blocks.unit_fit import UnitFit
from dq_toolchain.calibrate.finalize import finalize
from dq_toolchain.calibrate.fitting.phase import Work
from dq_toolchain.calibrate.fitting.rows import drawn_rows
from dq_toolchain.calibrate.methods import names, resolve
from dq_toolchain.calibrate.multistep.fit import MultiStepFit
from dq_toolchain.calibrate.multistep.problem import Problem
from dq_toolchain.calibrate.multistep.stages import plan
from dq_toolchain.calibrate.network.insert import QuantizedNetwork
from dq_toolchain.calibrate.prepare import setup as preparing
from dq_toolchain.calibrate.ranges.measure import observe_chosen, observe_rollouts, shared_rollouts
from dq_toolchain.calibrate.ranges.observer import choose_weight_scale
from dq_toolchain.calibrate.work.checkpoint import CheckpointFile
from dq_toolchain.calibrate.work.host_reads import HostReads, Kind, Place, read_on_host
from dq_toolchain.toolchain.quant.qparams import weight_type
from dq_toolchain.toolchain.simulation.integer_products import available
from tests.calibrate.conftest import QUIET, Measured, measured
from tests.tiny import SIZE, write_tiny_model

STEPS = 3
Laps = list[Counter[Place]]
BLOCKS = {
    "weights, activations": BlockOptions(),
    "weights aligned": BlockOptions(temporal=True, aligned=True),
    "joint": BlockOptions(joint=True, inner=0.8, drop=0.5),
    "joint aligned": BlockOptions(joint=True, aligned=True),
}


class Reads(torch.autograd.Function):
    """Reads a number in its backward pass, which for a device runs in a thread of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * float(gradient.max())


PLANTED: dict[str, tuple[Kind | None, Callable[[Tensor], Any]]] = {
    "float": ("read", lambda x: float(x.sum())),
    "item": ("read", lambda x: x[0].item()),
    "a boolean test": ("read", lambda x: bool(x.sum() > 0)),
    "equal": ("read", lambda x: torch.equal(x, x + 1)),
    "cpu": ("read", lambda x: x.cpu()),
    "copy to the host": ("read", lambda x: torch.empty(3).copy_(x)),
    "nonzero": ("read", lambda x: x.nonzero()),
    "masked rows": ("read", lambda x: x[x > 0]),
    "set masked rows": ("read", lambda x: x.clone().index_put_((x > 0,), x[:1])),
    "unique": ("read", lambda x: x.unique()),
    "bincount": ("read", lambda x: x.long().bincount()),
    "in a backward pass": ("read", lambda x: Reads.apply(x.clone().requires_grad_()).sum().backward()),
    "copy to the device": ("upload", lambda x: torch.ones(3).to(x.device)),
    "set from the host": ("upload", lambda x: x.clone().copy_(torch.ones(3))),
    "rows by an index of the host": ("upload", lambda x: x[torch.tensor([0, 1])]),
    "a choice with a number of the host": ("upload", lambda x: torch.where(x > 0, x, torch.tensor(1.0))),
    "copy that is queued": ("queued", lambda x: torch.ones(3).to(x.device, non_blocking=True)),
    "read that is queued": ("queued", lambda x: x.to("cpu", non_blocking=True)),
    "read on purpose": ("read", lambda x: read_on_host(x, "planted")),
    "nothing": (None, lambda x: torch.where(x > 0, x * torch.tensor(2.0), 1.0).sum() + torch.ones(3, device=x.device)),
}
"""What is found of each, and what does it to (3,) float32 on the device."""


def few_sites() -> UNet2DModel:
    """One level and a middle block without attention: all that a calibration does to layers, in as few operations as it takes."""
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=SIZE,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        add_attention=False,
        norm_num_groups=4,
        num_class_embeds=11,
    )
    return unet.eval().requires_grad_(False)


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
        preparing.choose_device = lambda name: device
        self.folder, self.device, self.found = folder, device, Found()
        available(device.type)  # a probe, once per process
        model = write_tiny_model(folder, few_sites())
        (folder / "dq.toml").write_text("[conditioning]\nnull_label = 10\n")
        few = {
            "samples": 5,
            "batch": 4,
            "warmup": 3,
            "iterations": 2,
            "settling": 0,
            "horizon": 2,
            "group_iterations": 1,
        }
        self.ready: Measured = measured(
            model,
            folder,
            sampler={"steps": STEPS, "guidance": 2.0},
            quantize={"step_groups": 2},
            calibrate=few,
            blocks={"rows": 16, "batch": 4},
        )
        fp32 = self.ready.context.prepared.network
        self.weight_scales = {
            site.layer: choose_weight_scale(fp32.get_parameter(f"{site.layer}.weight").cpu(), weight_type(8))
            for site in self.ready.context.prepared.sites
        }

    def network(self) -> QuantizedNetwork:
        ready, context = self.ready, self.ready.context
        network = QuantizedNetwork(
            context.prepared,
            ready.scale,
            ready.zero_point,
            self.weight_scales,
            context.group_of_step,
            learned_rounding=True,
        )
        return network.to(self.device)

    def planted(self) -> None:
        x = torch.tensor([1.0, 2.0, 3.0]).to(self.device)
        for name, (_, act) in PLANTED.items():
            with HostReads() as counter, self.found.one(f"planted: {name}", counter):
                act(x)

    def fit(self, gradient: str, **calibrate: Any) -> None:
        ready = self.ready
        settings = ready.recipe.calibrate.model_copy(update={"gradient": gradient, **calibrate})
        targets = ready.trajectories.targets
        problem = Problem(context=ready.context, targets=targets, validation=1, settings=settings)
        checkpoint = CheckpointFile(self.folder / f"{gradient}{len(calibrate)}.safetensors", "", writes=False)
        fit = MultiStepFit(self.network(), problem, plan(settings, ready.context.step_groups), checkpoint, QUIET.warn)
        validate = fit._validation_error
        with HostReads() as counter:

            def validated() -> float:
                self.found.laps.setdefault("fit: before a validation", []).append(counter.lap())
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

            UnitFit.run = fitted  # type: ignore[method-assign, assignment]
            try:
                reconstruct(
                    network,
                    ready.context.network,
                    drawn_rows(work),
                    BLOCKS[name],
                    BlockBudget(iterations=2, activation_iterations=1, batch=4),
                    0,
                    checkpoint,
                    advance,
                    Storage(device=self.device),
                )
            finally:
                UnitFit.run = run  # type: ignore[method-assign]

    def ranges(self) -> None:
        ready = self.ready
        with HostReads() as counter:

            def lapping(name: str) -> Callable[..., None]:
                return lambda n=1: self.found.laps.setdefault(name, []).append(counter.lap())

            observe_rollouts(ready.context, lapping("rollouts, ranges observed"))
            self.found.laps["after rollouts, ranges observed"] = [counter.lap()]
            shared_rollouts(ready.context, None, lapping("rollouts"))
            self.found.laps["after rollouts"] = [counter.lap()]
            observe_chosen(ready.context, ready.trajectories.targets, None, lapping("ranges of known rollouts"))
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
    """Laps of every loop, by its name."""
    scene = Scene(device, folder)
    scene.planted()
    scene.fit("adjoint")
    for gradient in ("surrogate", "full"):
        scene.fit(gradient, warmup=0, group_iterations=0)
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
