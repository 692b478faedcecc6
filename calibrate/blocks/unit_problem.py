"""What one unit is optimised on: recorded inputs, FP32 targets, its error per row, and which rows a batch takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from dq_toolchain.calibrate.blocks.capture import Captured, capture
from dq_toolchain.calibrate.blocks.evaluations import Evaluations
from dq_toolchain.calibrate.blocks.reading import Reader, Rows, stage_for
from dq_toolchain.calibrate.blocks.replay import Replays
from dq_toolchain.calibrate.blocks.storage import Storage
from dq_toolchain.calibrate.blocks.temporal import TEMPORAL, TemporalBlock
from dq_toolchain.calibrate.blocks.units import Unit
from dq_toolchain.calibrate.network.fake_quant import ActivationQuantizer
from dq_toolchain.calibrate.network.insert import QuantizedNetwork
from dq_toolchain.calibrate.work.host_reads import read_on_host
from dq_toolchain.toolchain.quant.hooks import hooks
from dq_toolchain.toolchain.quant.step_vectors import take_timesteps
from dq_toolchain.toolchain.sampler.transfer import to_device

JUDGED = 256
"""About this many rows, or all if there are fewer, give the error before and after."""
SHARE_SEED = 0


def row_errors(output: Tensor, target: Tensor, norm: float, axis: int | None = None) -> Tensor:
    """(B,) float32: |output - target|^norm summed over channels, mean over the rest.

    BRECQ's loss; differs: the channels of tokens (B, T, C) are the last axis, its code sums over the second of any
    tensor, which for tokens is the position.

    Args:
        output, target: (B, C), (B, T, C) or (B, C, H, W) float32; with ``axis`` any shape.
        axis: of the channels. None, of blocks, which give tokens or pictures: by the number of axes.
    """
    difference = output - target
    powers = difference.square() if norm == 2.0 else difference.abs().pow(norm)
    per_place = powers.sum((1 if powers.dim() == 4 else -1) if axis is None else axis)
    return per_place.flatten(1).mean(1) if per_place.dim() > 1 else per_place


@dataclass(frozen=True)
class Pools:
    """Row numbers that may share a batch, (R_p,) int64 each: those of one step group, or all of them."""

    parts: tuple[Tensor, ...]

    @classmethod
    def by_step_group(cls, rows: Evaluations, group_of_step: tuple[int, ...]) -> Pools:
        of_row = torch.tensor(group_of_step)[rows.step.cpu()]
        return cls(tuple((of_row == g).nonzero()[:, 0] for g in of_row.unique()))

    @classmethod
    def single(cls, rows: Evaluations) -> Pools:
        return cls((torch.arange(len(rows)),))

    def passes(self, size: int) -> list[Tensor]:
        """Batches that cover every row once."""
        return [batch for part in self.parts for batch in part.split(size)]

    def share(self, count: int) -> Pools:
        """About ``count`` rows in all, at least one of each part, always the same ones; in ascending order.

        A random choice: every n-th row may be one sample at every step, as rows are often laid out in a grid.
        """
        generator = torch.Generator().manual_seed(SHARE_SEED)
        total = sum(len(part) for part in self.parts)
        sizes = [max(1, round(min(1.0, count / total) * len(part))) for part in self.parts]
        picked = (self.draw_from(i, size, generator).sort()[0] for i, size in enumerate(sizes))
        return Pools(tuple(picked))

    def without(self, other: Pools) -> Pools:
        """Each part less that of ``other``; a part that would be left empty stays whole."""
        rest = (a[~torch.isin(a, b)] for a, b in zip(self.parts, other.parts, strict=True))
        return Pools(tuple(r if len(r) else a for r, a in zip(rest, self.parts, strict=True)))

    def draw(self, size: int, generator: torch.Generator) -> tuple[int, Tensor]:
        """A part in proportion to its rows, and (B,) of them, B <= size, without repetition."""
        lengths = torch.tensor([float(len(part)) for part in self.parts])
        chosen = int(torch.multinomial(lengths, 1, generator=generator)) if len(self.parts) > 1 else 0
        return chosen, self.draw_from(chosen, size, generator)

    def drawn(self, size: int, seed: int) -> tuple[int, Tensor, torch.Generator]:
        """``draw`` by a generator of that seed, and the generator, for what is drawn next."""
        generator = torch.Generator().manual_seed(seed)
        return *self.draw(size, generator), generator

    def draw_from(self, chosen: int, size: int, generator: torch.Generator) -> Tensor:
        """(B,) rows of one part, B <= size, without repetition."""
        part = self.parts[chosen]
        return part[torch.randperm(len(part), generator=generator)[:size]]


def quantizers_of(network: QuantizedNetwork, unit: Unit) -> dict[str, ActivationQuantizer]:
    """The unit's activation quantizers by site, operands of its attention products included."""
    prefix = f"{unit.name}."
    return {
        site.name: network.activations[site.name]
        for site in network.sites
        if site.layer in unit.layers or (site.kind == "attention" and f"{site.layer}.".startswith(prefix))
    }


class UnitProblem:
    """One unit with its recorded inputs and targets. Made anew for every unit and phase, and dropped after it."""

    def __init__(
        self,
        network: QuantizedNetwork,
        fp32: nn.Module,
        rows: Evaluations,
        unit: Unit,
        *,
        pools: Pools,
        inner: float,
        storage: Storage,
        replays: Replays | None = None,
    ) -> None:
        """Record inputs behind the quantized prefix, in the network's present state, and outputs of the FP32 unit.

        Args:
            pools: rows by step group.
            inner: weight of the errors of the layers inside, 0 to leave them out; then they are not recorded either.
            replays: of the units finished before this one; None computes them.
        """
        self.network, self.rows, self.unit = network, rows, unit
        self.weight_of_inner = inner if len(unit.layers) > 1 else 0.0
        kinds = {site.layer: site.kind for site in network.sites if site.kind != "attention"}
        self.axes = {layer: -1 if kind == "linear" else 1 for layer, kind in kinds.items()}
        """Of the channels of what each layer gives: those of Conv1d, (B, C, T), have as many axes as tokens."""
        self.device = network.device
        self.validation, self.storage = pools.share(JUDGED), storage
        root, self.module = _root_and_module(network.inner, unit)
        exact_root, exact = _root_and_module(fp32, unit)
        passes = pools.passes(storage.at_once)
        usable = replays if root is network.inner else None
        quantized, plain = (None, None) if usable is None else (usable.quantized, usable.fp32)
        self.inputs = capture(
            root,
            self.module,
            rows,
            passes,
            device=self.device,
            inputs=True,
            set_step=network.set_step,
            replay=quantized,
            storage=storage,
        )
        watched = {name: fp32.get_submodule(name) for name in unit.layers} if self.weight_of_inner else {}
        self.targets: Captured = capture(
            exact_root,
            exact,
            rows,
            passes,
            device=self.device,
            outputs=True,
            inner=watched,
            replay=plain,
            storage=storage,
        )

        self._reader = Reader({**self.inputs.records, **self.targets.records}, self.device, stage_for(self.device))

    @property
    def quantizers(self) -> dict[str, ActivationQuantizer]:
        return quantizers_of(self.network, self.unit)

    def bring(self) -> None:
        """Have the unit's weights on the device; those of the temporal block are there always."""
        if self.unit.name != TEMPORAL:
            self.network.bring(self.unit.name)

    def losses(self, index: Tensor, norm: float) -> Tensor:
        """(B,) error of the unit's output, plus the weighted ones of its layers, at rows (B,) of one step group."""
        rows = self._reader.read(index)
        with self._watched() as inner:
            output = self._run(index, rows)
        total = row_errors(output, rows["output", ""], norm, self.axes.get(self.unit.name))
        for name, found in inner.items():
            total = total + self.weight_of_inner * row_errors(found, rows["inner", name], norm, self.axes[name])
        return total

    def expect(self, index: Tensor) -> None:
        """The rows (B,) of the next ``losses``: they are brought meanwhile."""
        self._reader.expect(index)

    @torch.no_grad()
    def error(self) -> float:
        """Mean squared error of the unit's output over the validation rows."""
        total, count = torch.zeros((), dtype=torch.float64, device=self.device), 0
        batches = self.validation.passes(self.storage.at_once)
        for index, upcoming in zip_longest(batches, batches[1:]):
            rows = self._reader.read(index)
            if upcoming is not None:
                self._reader.expect(upcoming)
            difference = self._run(index, rows) - rows["output", ""]
            total, count = total + difference.square().sum(dtype=torch.float64), count + difference.numel()
        return float(read_on_host(total, "error of a unit")) / count

    def _run(self, index: Tensor, rows: Rows) -> Tensor:
        self.network.set_step(int(self.rows.step[index[0]]))
        take_timesteps(self.network.inner, to_device(self.rows.timestep[index], self.device))
        self.bring()
        args, kwargs = self.inputs.call(rows)
        out: Tensor = self.module(*args, **kwargs)
        return out

    @contextmanager
    def _watched(self) -> Iterator[dict[str, Tensor]]:
        found: dict[str, Tensor] = {}

        def keep(name: str, output: Any) -> None:
            found[name] = output

        handles = (
            self.network.layers[name].register_forward_hook(lambda _m, _a, output, name=name: keep(name, output))
            for name in self.targets.inner
        )
        with hooks(handles):
            yield found


def _root_and_module(network: nn.Module, unit: Unit) -> tuple[nn.Module, nn.Module]:
    if unit.name == TEMPORAL:
        block = TemporalBlock(network)
        return block, block
    return network, network.get_submodule(unit.name)
