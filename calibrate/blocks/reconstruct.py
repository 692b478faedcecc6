"""Block reconstruction: unit by unit, rounding and activation scales are fitted to the FP32 output of the unit.

The machinery that BRECQ, Q-Diffusion, TFMQ-DM, EDA-DM and gradient-aligned calibration share, on the quantizers and
sites of every other method here. Random draws derive from (seed, phase, unit, iteration) and all else is in the
checkpoint, so that a run that was killed and started again is bit-identical to one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dq_toolchain.calibrate.blocks.aligned import RowWeights
from dq_toolchain.calibrate.blocks.fit import UnitFit
from dq_toolchain.calibrate.blocks.options import BlockBudget, BlockOptions, Phase, phases
from dq_toolchain.calibrate.blocks.problem import Pools, UnitProblem
from dq_toolchain.calibrate.blocks.replay import Replays
from dq_toolchain.calibrate.blocks.rows import Rows
from dq_toolchain.calibrate.blocks.temporal import with_temporal_unit
from dq_toolchain.calibrate.blocks.units import Unit, find_units, layers_by_unit
from dq_toolchain.calibrate.checkpoint import CheckpointFile
from dq_toolchain.calibrate.insert import QuantizedUNet

__all__ = ["BlockBudget", "BlockOptions", "planned_iterations", "reconstruct", "units_of"]


def units_of(network: QuantizedUNet, rows: Rows, options: BlockOptions) -> tuple[Unit, ...]:
    """The units in the order in which they are reconstructed."""
    one = rows.select(slice(0, 1)).to(next(network.parameters()).device)
    units = find_units(network.unet, lambda unet: unet(one.sample, one.timestep, **one.keywords, return_dict=False))
    return with_temporal_unit(network.unet, units) if options.temporal else units


def planned_iterations(network: QuantizedUNet, options: BlockOptions, budget: BlockBudget) -> int:
    """The sum of what ``reconstruct`` tells ``advance``."""
    units = tuple(Unit(name, layers) for name, layers in layers_by_unit(network.unet).items())
    count = len(with_temporal_unit(network.unet, units)) if options.temporal else len(units)
    return count * sum(iterations for _, iterations in phases(options, budget))


def reconstruct(
    network: QuantizedUNet,
    fp32: nn.Module,
    rows: Rows,
    options: BlockOptions,
    budget: BlockBudget,
    seed: int,
    checkpoint: CheckpointFile,
    advance: Callable[..., None] = lambda n=1, note="": None,
) -> list[dict[str, Any]]:
    """Reconstruct every unit of the network, in place, from the checkpoint if there is one.

    Inputs of a unit come from the network as it stands: committed weights, and activations quantized except in the
    weights phase (Q-Diffusion's order). A unit that ends worse than it began, on its own rows, is put back. Biases,
    weight scales and zero-points stay as they are.

    Args:
        fp32: the UNet with the same splits, on the same device.
        rows: on any device; recorded inputs and targets of one unit at a time, and outputs of finished units up to
            ``replay.LARGEST`` bytes per network, are kept there too.
    Returns:
        One record per phase and unit: phase, unit, mean squared error of its output before and after (activations
        in float in the weights phase), whether it was put back, and seconds. The checkpoint's state holds their sum as
        ``seconds``, resumed runs included.
    Raises:
        CalibrationError: a loss is not finite; the text names the unit.
    """
    units = units_of(network, rows, options)
    work = _Reconstruction(network, fp32, rows, options, budget, seed, checkpoint, units)
    with _only_held_weights(network):
        return work.run(advance)


@contextmanager
def _only_held_weights(network: QuantizedUNet) -> Iterator[None]:
    """Inside, nothing needs a gradient unless asked to, and weights are dequantized once; after it, all as before."""
    needed = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    network.requires_grad_(False)
    for layer in network.layers.values():
        layer.hold(layer.weight_quantizer(), rounded=True)
    try:
        yield
    finally:
        for layer in network.layers.values():
            layer.hold(None, rounded=False)
        for quantizer in network.activations.values():
            quantizer.kept, quantizer.generator = 0.0, None
        for parameter, flag in needed:
            parameter.requires_grad_(flag)


@dataclass
class _Reconstruction:
    network: QuantizedUNet
    fp32: nn.Module
    rows: Rows
    options: BlockOptions
    budget: BlockBudget
    seed: int
    checkpoint: CheckpointFile
    units: tuple[Unit, ...]

    def __post_init__(self) -> None:
        self.groups = Pools.by_step_group(self.rows, self.network.group_of_step)
        self.weights = RowWeights(self.rows.timestep)
        self.records: list[dict[str, Any]] = []
        self.phase: Phase | None = None
        self.replays = Replays.begin(self.rows, self.units)
        self.fit = UnitFit(self.network, self.rows, self.groups, self.options, self.budget, self.seed, self.weights)

    def run(self, advance: Callable[..., None]) -> list[dict[str, Any]]:
        plan = [
            (phase, count, number)
            for phase, count in phases(self.options, self.budget)
            for number in range(len(self.units))
        ]
        saved = self.checkpoint.load()
        if saved is not None:
            self._restore(*saved)
            done = sum(count for _, count, _ in plan[: len(self.records)])
            if done:
                advance(done)
        for phase, count, number in plan[len(self.records) :]:
            begin = time.perf_counter()
            self._follow(phase, number)
            record = self._unit(phase, count, number, advance)
            self.records.append(record | {"seconds": time.perf_counter() - begin})
            self._save()
        return self.records

    def _follow(self, phase: Phase, number: int) -> None:
        """Units before this one are final, until the next phase."""
        if phase != self.phase:
            self.replays = Replays.begin(self.rows, self.units, self.replays.fp32)
            self.phase = phase
        for unit in self.units[:number]:
            self.replays.finish(unit)

    def _unit(self, phase: Phase, count: int, number: int, advance: Callable[..., None]) -> dict[str, Any]:
        unit = self.units[number]
        for quantizer in self.network.activations.values():
            quantizer.kept = 1.0 if phase == "weights" else 0.0
        problem = UnitProblem(self.network, self.fp32, self.rows, unit, self.groups, self.options.inner, self.replays)
        before = problem.error()
        start = {name: value.clone() for name, value in self._state(unit, problem).items()}
        self.fit.run(problem, phase, count, number, advance)
        self._hold(unit)
        after = problem.error()
        put_back = not after <= before
        if put_back:
            with torch.no_grad():
                for name, value in self._state(unit, problem).items():
                    value.copy_(start[name])
            self._hold(unit)
        return {
            "phase": phase,
            "unit": unit.name,
            "before": before,
            "after": before if put_back else after,
            "put_back": put_back,
        }

    def _hold(self, unit: Unit) -> None:
        for name in unit.layers:
            layer = self.network.layers[name]
            layer.hold(layer.weight_quantizer(), rounded=True)

    def _state(self, unit: Unit, problem: UnitProblem) -> dict[str, Tensor]:
        return _tensors(self.network, unit.layers, tuple(problem.quantizers))

    def _all(self) -> dict[str, Tensor]:
        tensors = _tensors(self.network, tuple(self.network.layers), tuple(self.network.activations))
        return tensors | {"row_logits": self.weights.logits}

    def _save(self) -> None:
        seconds = sum(record["seconds"] for record in self.records)
        self.checkpoint.save(self._all(), {"records": self.records, "seconds": seconds})

    @torch.no_grad()
    def _restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        for name, value in self._all().items():
            value.copy_(tensors[name])
        self.records = state["records"]
        for unit in self.units:
            self._hold(unit)


def _tensors(network: QuantizedUNet, layers: tuple[str, ...], sites: tuple[str, ...]) -> dict[str, Tensor]:
    """What reconstruction changes, as tensors that share memory with the network."""
    found = {f"{site}.log_scale": network.activations[site].log_scale.detach() for site in sites}
    for name in layers:
        quantizer = network.layers[name].weight_quantizer
        found[f"{name}.ratio"] = quantizer.ratio
        if quantizer.offset is not None:
            found[f"{name}.offset"] = quantizer.offset.detach()
    return found
