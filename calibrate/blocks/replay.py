"""Outputs of finished units, so that what leads to the next unit is not computed again for every unit.

Units are finished in the order in which the network calls them, and what comes later changes nothing before it: the
first pass in which a finished unit runs records its output, all later passes answer with the record. Numbers are the same
with and without, to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from dq_toolchain.calibrate.blocks.evaluations import Evaluations
from dq_toolchain.calibrate.blocks.records import put_rows, rows_of
from dq_toolchain.calibrate.blocks.storage import Storage
from dq_toolchain.calibrate.blocks.temporal import TEMPORAL
from dq_toolchain.calibrate.blocks.units import Unit
from dq_toolchain.calibrate.network.forwards import Forward, replaced_forwards


class Replay:
    """The finished units of one network over the same rows, always in the same batches.

    Attributes:
        index: rows of the batch at work, (B,) int64; to be set before every pass.
    """

    def __init__(self, rows: int, device: torch.device, storage: Storage) -> None:
        """``device``: where records are kept if ``storage`` has no other place."""
        self.rows, self.device, self.storage, self.left = rows, device, storage, storage.replayed
        self.index = torch.arange(0)
        self._outputs: dict[str, Tensor] = {}
        self._known: dict[str, Tensor] = {}
        self._orders: dict[str, tuple[int, ...]] = {}
        self._computed: set[str] = set()

    def finish(self, name: str) -> None:
        """The module of that name changes no more, nor does anything before it."""
        self._known.setdefault(name, torch.zeros(self.rows, dtype=torch.bool))

    @contextmanager
    def playing(self, network: nn.Module, without: str) -> Iterator[None]:
        """Inside, finished modules answer with their records or make them; ``without``, a name, is computed."""
        names = [name for name in self._known if name != without and name not in self._computed]
        with replaced_forwards((network.get_submodule(name), partial(self._answering, name)) for name in names):
            yield

    def _answering(self, name: str, forward: Forward) -> Forward:
        return partial(self._answer, name, forward)

    def _answer(self, name: str, forward: Forward, *args: Any, **kwargs: Any) -> Any:
        if name not in self._computed and self._known[name].all():
            like = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
            return _in_order(rows_of(self._outputs[name], self.index, like.device), self._orders[name])
        output = forward(*args, **kwargs)
        if name not in self._computed:
            self._record(name, output)
        return output

    def _record(self, name: str, output: Any) -> None:
        called_twice = bool(self._known[name][self.index].any())
        if called_twice or (name not in self._outputs and not self._reserve(name, output)):
            self._computed.add(name)
            self._outputs.pop(name, None)
            return
        put_rows(self._outputs[name], self.index, output)
        self._known[name][self.index] = True

    def _reserve(self, name: str, output: Any) -> bool:
        if not isinstance(output, Tensor) or output.dim() == 0 or len(output) != len(self.index):
            return False
        size = output[0].numel() * output.element_size() * self.rows
        if size > self.left:
            return False
        self.left -= size
        self._orders[name] = _order_of(output)
        self._outputs[name] = self.storage.empty((self.rows, *output.shape[1:]), output.dtype, self.device)
        return True


@dataclass(frozen=True)
class Replays:
    """Of the quantized network in the present phase, and of FP32."""

    quantized: Replay
    fp32: Replay

    @classmethod
    def begin(cls, rows: Evaluations, units: Sequence[Unit], storage: Storage, fp32: Replay | None = None) -> Replays:
        """For a phase: nothing quantized is finished yet, and all of FP32 is; ``fp32``: of the phase before."""
        exact = Replay(len(rows), rows.sample.device, storage) if fp32 is None else fp32
        for unit in units:
            if unit.name != TEMPORAL:
                exact.finish(unit.name)
        return cls(Replay(len(rows), rows.sample.device, storage), exact)

    def finish(self, unit: Unit) -> None:
        """The quantized unit is final in this phase."""
        if unit.name != TEMPORAL:
            self.quantized.finish(unit.name)


def _order_of(output: Tensor) -> tuple[int, ...]:
    """Its axes as they lie in memory, outermost first. An axis of length 1 has any stride: where it lies is not known. Such a batch
    is taken for the outermost axis, as in every layout of pictures and tokens."""
    strides = [inf if axis == 0 and len(output) == 1 else stride for axis, stride in enumerate(output.stride())]
    return tuple(sorted(range(output.dim()), key=strides.__getitem__, reverse=True))


def _in_order(value: Tensor, order: tuple[int, ...]) -> Tensor:
    """The same numbers with axes in memory in this order, outermost first: sums further on run in the order of memory."""
    inverse = sorted(range(len(order)), key=order.__getitem__)
    return value.permute(order).contiguous().permute(inverse)
