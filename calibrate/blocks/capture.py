"""What a module inside a network is called with and what it returns, recorded over many rows.

The forward pass is left as soon as the module has run, and only what was asked for is kept. Beside it reconstruction
holds the records of ``Replay``, which are bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dq_toolchain.calibrate.blocks.evaluations import Evaluations
from dq_toolchain.calibrate.blocks.reading import Key, Rows
from dq_toolchain.calibrate.blocks.records import put_rows
from dq_toolchain.calibrate.blocks.replay import Replay
from dq_toolchain.calibrate.blocks.storage import IN_MEMORY, Storage
from dq_toolchain.toolchain.errors import CalibrationError
from dq_toolchain.toolchain.models.architectures import call_network
from dq_toolchain.toolchain.quant.hooks import hooks


class _Reached(Exception):
    """Ends a forward pass once there is nothing more to record."""


@dataclass
class Captured:
    """Calls of one module, tensors of any shape with the rows as first axis, where ``Storage`` put them.

    Attributes:
        args, kwargs: of the call; what is not a tensor is that of the first batch.
        output: what the module returned; None if it was not asked for.
        inner: outputs of modules inside it, by the names they were asked for.
    """

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    output: Tensor | None = None
    inner: dict[str, Tensor] = field(default_factory=dict)

    @property
    def records(self) -> Rows:
        """All tensors, by what they are."""
        every: dict[Key, Any] = {("output", ""): self.output}
        every |= {("input", key): value for key, value in (*enumerate(self.args), *self.kwargs.items())}
        every |= {("inner", name): value for name, value in self.inner.items()}
        return {key: value for key, value in every.items() if isinstance(value, Tensor)}

    def call(self, rows: Rows) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """args and kwargs of some rows of ``records``."""
        args = tuple(rows.get(("input", place), value) for place, value in enumerate(self.args))
        return args, {name: rows.get(("input", name), value) for name, value in self.kwargs.items()}


class _Record:
    """Row tensors under their keys, allocated whole at the first batch so that nothing is held twice."""

    def __init__(self, name: str, rows: Evaluations, storage: Storage) -> None:
        self.name, self.count, self.device, self.storage = name, len(rows), rows.sample.device, storage
        self.values: dict[object, Any] = {}

    def put(self, key: object, index: Tensor, value: Any) -> None:
        if not isinstance(value, Tensor):
            self.values.setdefault(key, value)
            return
        if value.dim() == 0 or len(value) != len(index):
            raise CalibrationError(
                f"{self.name} handles a tensor of shape {tuple(value.shape)} in a batch of {len(index)}: its first "
                "axis is not the sample, so it cannot be reconstructed row by row; use another method"
            )
        if key not in self.values:
            self.values[key] = self.storage.empty((self.count, *value.shape[1:]), value.dtype, self.device)
        put_rows(self.values[key], index, value)


@torch.no_grad()
def capture(
    network: nn.Module,
    module: nn.Module,
    rows: Evaluations,
    batches: Sequence[Tensor],
    *,
    device: torch.device,
    inputs: bool = False,
    outputs: bool = False,
    inner: Mapping[str, nn.Module] | None = None,
    set_step: Callable[[int], None] | None = None,
    replay: Replay | None = None,
    storage: Storage = IN_MEMORY,
) -> Captured:
    """Run ``network`` over rows and record the calls of ``module``, which may be the network itself.

    Args:
        batches: row numbers (B,) int64 each, every row once; rows of one batch share the step group.
        inner: modules inside ``module`` whose outputs are wanted too.
        set_step: told a step of the batch before every pass.
        replay: of the modules that are called before this one.
        storage: where the record is kept.
    Raises:
        CalibrationError: the network never calls the module, or a tensor has no rows.
    """
    record = _Record(type(module).__name__, rows, storage)
    current = batches[0]
    after = outputs or bool(inner)

    def before_call(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if inputs:
            record.values.setdefault("calls", (len(args), tuple(kwargs)))
            for key, value in (*enumerate(args), *kwargs.items()):
                record.put(("input", key), current, value)
        if not after:
            raise _Reached

    def after_call(_module: nn.Module, _args: object, output: Any) -> None:
        if outputs:
            record.put("output", current, output)
        raise _Reached

    def watched() -> Iterator[RemovableHandle]:
        yield module.register_forward_pre_hook(before_call, with_kwargs=True)
        for name, layer in (inner or {}).items():
            yield layer.register_forward_hook(
                lambda _module, _args, output, name=name: record.put(("inner", name), current, output)
            )
        if after:
            yield module.register_forward_hook(after_call)

    name_of_it = next((name for name, found in network.named_modules() if found is module), "")
    with hooks(watched()), nullcontext() if replay is None else replay.playing(network, name_of_it):
        for current in batches:
            part = rows.select(current)
            if set_step is not None:
                set_step(int(part.step[0]))
            given = part.to(device)
            if replay is not None:
                replay.index = current
            try:
                call_network(network, given.sample, given.timestep, given.keywords)
            except _Reached:
                continue
            raise CalibrationError(f"the network never calls the {record.name} that is to be reconstructed")
    values = record.values
    positional, names = values.get("calls", (0, ()))
    return Captured(
        tuple(values[("input", i)] for i in range(positional)),
        {name: values[("input", name)] for name in names},
        values.get("output"),
        {name: values[("inner", name)] for name in inner or {} if ("inner", name) in values},
    )
