"""A recorder for a CPU that replays as a CUDA graph does: the operations heard once, on the memory they had then.

It is for tests and dry runs. An input that is not copied into its place, a number that Python bakes in and a tensor made
anew give wrong numbers or NaN here as they would on a GPU; what a GPU refuses to record is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from dq_toolchain.calibrate.network.recorder import Work

aten = torch.ops.aten
REFUSED = {
    torch.Tag.data_dependent_output: "reads a number from the device",
    torch.Tag.dynamic_output_shape: "gives a tensor whose shape depends on numbers on the device",
    torch.Tag.nondeterministic_seeded: "draws random numbers from a generator that no recording knows",
}
INTEGERS = (torch.int64, torch.int32)
CONSTANTS = (aten.lift_fresh.default, aten.lift_fresh_copy.default)


class Tape:
    """Recordings on a CPU."""

    def record(self, works: Sequence[Work]) -> list[Work]:
        for work in works:
            work()
        heard = []
        for work in works:
            with _Listener() as listener:
                work()
            heard.append(listener.operations)
        for operations in heard:
            _spoil(operations)
        return [partial(_replay, operations) for operations in heard]


@dataclass(frozen=True)
class _Operation:
    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any

    @property
    def made(self) -> list[Tensor]:
        """Tensors of the result in memory of their own: neither an argument nor a view of one."""
        given = {_storage(x) for x in tree_leaves((self.args, self.kwargs)) if isinstance(x, Tensor)}
        return [x for x in tree_leaves(self.result) if isinstance(x, Tensor) and _storage(x) not in given]


class _Listener(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[_Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        reason = _why_refused(func, args)
        if reason is not None:
            raise RuntimeError(f"{func} {reason}")
        result = func(*args, **kwargs)
        self.operations.append(_Operation(func, args, kwargs, result))
        return result


def _why_refused(function: Any, args: Sequence[Any]) -> str | None:
    if function in CONSTANTS:
        return "makes a tensor from a number on the host"
    if function is aten.index.Tensor and all(index is None or index.dtype in INTEGERS for index in args[1]):
        return None
    if function.namespace == "aten" and function._schema.name.startswith("aten::_scaled_dot_product"):
        return None  # it draws for a dropout that no network here has
    return next((text for tag, text in REFUSED.items() if tag in function.tags), None)


def _storage(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def _spoil(operations: Sequence[_Operation]) -> None:
    """A recording computes nothing: what is read before it is replayed shall show."""
    for operation in operations:
        for x in operation.made:
            if x.is_floating_point():
                x.detach().fill_(torch.nan)


@torch.no_grad()
def _replay(operations: Sequence[_Operation]) -> None:
    """Unheard by every mode around it, as one launch of a graph is."""
    with _disable_current_modes():
        for operation in operations:
            result = operation.function(*operation.args, **operation.kwargs)
            for place, x in zip(tree_leaves(operation.result), tree_leaves(result), strict=True):
                if isinstance(x, Tensor) and _storage(x) != _storage(place):
                    place.detach().copy_(x)
