"""Block reconstruction: unit by unit, rounding and activation scales are fitted to the FP32 output of the unit.

The machinery that BRECQ, Q-Diffusion, TFMQ-DM, EDA-DM and gradient-aligned calibration share, on the quantizers and
sites of every other method here. Random draws derive from (seed, phase, unit, iteration) and all else is in the
checkpoint, one part per finished unit, so that a run that was killed and started again is bit-identical to one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dq_toolchain.calibrate.blocks.evaluations import Evaluations
from dq_toolchain.calibrate.blocks.options import BlockBudget, BlockOptions, BlockPhase, block_phases
from dq_toolchain.calibrate.blocks.replay import Replays
from dq_toolchain.calibrate.blocks.row_weights import RowWeights
from dq_toolchain.calibrate.blocks.storage import IN_MEMORY, Storage
from dq_toolchain.calibrate.blocks.temporal import with_temporal_unit
from dq_toolchain.calibrate.blocks.unit_fit import UnitFit
from dq_toolchain.calibrate.blocks.unit_problem import Pools, UnitProblem, quantizers_of
from dq_toolchain.calibrate.blocks.units import Unit, find_units, layers_by_unit
from dq_toolchain.calibrate.network.insert import QuantizedNetwork
from dq_toolchain.calibrate.work.checkpoint import CheckpointFile
from dq_toolchain.toolchain.console.progress import Advance
from dq_toolchain.toolchain.models.architectures import call_network

__all__ = ["BlockBudget", "BlockOptions", "planned_iterations", "reconstruct", "units_of"]


def units_of(network: QuantizedNetwork, rows: Evaluations, options: BlockOptions) -> tuple[Unit, ...]:
    """The units in the order in which they are reconstructed."""
    one = rows.select(slice(0, 1)).to(network.device)
    units = find_units(network.inner, lambda fp32: call_network(fp32, one.sample, one.timestep, one.keywords))
    return with_temporal_unit(network.inner, units) if options.temporal else units


def planned_iterations(network: QuantizedNetwork, options: BlockOptions, budget: BlockBudget) -> int:
    """The sum of what ``reconstruct`` tells ``advance``."""
    units = tuple(Unit(name, layers) for name, layers in layers_by_unit(network.inner).items())
    count = len(with_temporal_unit(network.inner, units)) if options.temporal else len(units)
    return count * sum(iterations for _, iterations in block_phases(options, budget))


def reconstruct(
    network: QuantizedNetwork,
    fp32: nn.Module,
    rows: Evaluations,
    options: BlockOptions,
    budget: BlockBudget,
    seed: int,
    checkpoint: CheckpointFile,
    advance: Advance = lambda n=1, note="": None,
    storage: Storage = IN_MEMORY,
) -> list[dict[str, Any]]:
    """Reconstruct every unit of the network, in place, from the checkpoint if there is one.

    Inputs of a unit come from the network as it stands: committed weights, and activations quantized except in the
    weights phase (Q-Diffusion's order). A unit that ends worse than it began, on its own rows, is restored. Biases,
    weight scales and zero-points stay as they are.

    Args:
        fp32: the network with the same splits, on the same device.
        rows: on the CPU; recorded inputs and targets of one unit at a time, and outputs of finished units, are kept
            there too, on a device, or on disk, as ``storage`` says.
    Returns:
        One record per phase and unit: phase, unit, mean squared error of its output before and after (activations
        in float in the weights phase), whether it was restored (``put_back``), and seconds.
    Raises:
        CalibrationError: a loss is not finite; the text names the unit.
    """
    units = units_of(network, rows, options)
    work = _Reconstruction(
        network=network,
        fp32=fp32,
        rows=rows,
        options=options,
        budget=budget,
        seed=seed,
        checkpoint=checkpoint,
        units=units,
        storage=storage,
    )
    with _fixed_weights(network):
        return work.run(advance)


@contextmanager
def _fixed_weights(network: QuantizedNetwork) -> Iterator[None]:
    """Inside, nothing needs a gradient unless asked to, and weights are dequantized once; after it, all as before."""
    needed = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    network.requires_grad_(False)
    network.keep_weights(network.layers)
    try:
        yield
    finally:
        for layer in network.layers.values():
            layer.fix_weight(None, rounded=False)
        for quantizer in network.activations.values():
            quantizer.float_share, quantizer.generator = 0.0, None
        for parameter, flag in needed:
            parameter.requires_grad_(flag)


@dataclass(kw_only=True)
class _Reconstruction:
    network: QuantizedNetwork
    fp32: nn.Module
    rows: Evaluations
    options: BlockOptions
    budget: BlockBudget
    seed: int
    checkpoint: CheckpointFile
    units: tuple[Unit, ...]
    storage: Storage

    def __post_init__(self) -> None:
        self.pools = Pools.by_step_group(self.rows, self.network.group_of_step)
        self.weights = RowWeights(self.rows.timestep, self.network.device)
        self.records: list[dict[str, Any]] = []
        self.phase: BlockPhase | None = None
        self.replays = Replays.begin(self.rows, self.units, self.storage)
        self.fit = UnitFit(
            network=self.network,
            rows=self.rows,
            pools=self.pools,
            options=self.options,
            budget=self.budget,
            seed=self.seed,
            weights=self.weights,
        )

    def run(self, advance: Advance) -> list[dict[str, Any]]:
        plan = [
            (phase, count, number)
            for phase, count in block_phases(self.options, self.budget)
            for number in range(len(self.units))
        ]
        self._restore()
        if self.records:
            advance(sum(count for _, count, _ in plan[: len(self.records)]))
        for phase, count, number in plan[len(self.records) :]:
            begin = time.perf_counter()
            self._follow(phase, number)
            record = self._unit(phase, count, number, advance)
            record["seconds"] = time.perf_counter() - begin
            tensors = self._state(self.units[number]) | {"row_logits": self.weights.logits}
            self.checkpoint.part(len(self.records)).save(tensors, record)
            self.records.append(record)
        return self.records

    def _follow(self, phase: BlockPhase, number: int) -> None:
        """Units before this one are final, until the next phase."""
        if phase != self.phase:
            self.replays = Replays.begin(self.rows, self.units, self.storage, self.replays.fp32)
            self.phase = phase
        for unit in self.units[:number]:
            self.replays.finish(unit)

    def _unit(self, phase: BlockPhase, count: int, number: int, advance: Advance) -> dict[str, Any]:
        unit = self.units[number]
        for quantizer in self.network.activations.values():
            quantizer.float_share = 1.0 if phase == "weights" else 0.0
        problem = UnitProblem(
            self.network,
            self.fp32,
            self.rows,
            unit,
            pools=self.pools,
            inner=self.options.inner,
            storage=self.storage,
            replays=self.replays,
        )
        before = problem.error()
        start = {name: value.clone() for name, value in self._state(unit).items()}
        self.fit.run(problem, phase, count, number, advance)
        self.network.keep_weights(unit.layers)
        after = problem.error()
        restored = not after <= before
        if restored:
            self._set_state(unit, start)
            self.network.keep_weights(unit.layers)
        return {
            "phase": phase,
            "unit": unit.name,
            "before": before,
            "after": before if restored else after,
            "put_back": restored,
        }

    def _state(self, unit: Unit) -> dict[str, Tensor]:
        """What reconstruction changes of a unit."""
        sites = quantizers_of(self.network, unit).items()
        found = {f"{site}.log_scale": quantizer.log_scale.detach() for site, quantizer in sites}
        for name in unit.layers:
            quantizer = self.network.layers[name].weight_quantizer
            if quantizer.chosen is not None:
                found[f"{name}.chosen"] = quantizer.chosen
            if quantizer.offset is not None:
                found[f"{name}.offset"] = quantizer.offset.detach()
        return found

    @torch.no_grad()
    def _set_state(self, unit: Unit, tensors: Mapping[str, Tensor]) -> None:
        for site, activation in quantizers_of(self.network, unit).items():
            activation.log_scale.copy_(tensors[f"{site}.log_scale"])
        for name in unit.layers:
            quantizer, chosen = self.network.layers[name].weight_quantizer, tensors.get(f"{name}.chosen")
            quantizer.chosen = None if chosen is None else chosen.to(quantizer.weight.device)
            if quantizer.offset is not None:
                quantizer.offset.copy_(tensors[f"{name}.offset"])

    def _restore(self) -> None:
        """Every part that is there, in the order in which they were made."""
        while (part := self.checkpoint.part(len(self.records)).load()) is not None:
            tensors, record = part
            unit = next(unit for unit in self.units if unit.name == record["unit"])
            self._set_state(unit, tensors)
            self.network.keep_weights(unit.layers)
            self.weights.logits.copy_(tensors["row_logits"])
            self.records.append(record)
