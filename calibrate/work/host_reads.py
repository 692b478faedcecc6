"""Where the host waits for the device: reads of its numbers, and copies to it that are not queued.

A GPU works through a queue that the host fills. Whenever the host asks for a number it waits until the queue is empty, and the
device then waits for the host. ``HostReads`` finds the lines that do so, ``read_on_host`` is for those that mean to.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import FrameType
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Kind = Literal["read", "upload", "queued"]
"""``read``: the host waits for numbers of the device. ``upload``: it waits until its memory was copied to the device.
``queued``: a copy between the two that it does not wait for."""

aten = torch.ops.aten
DATA_DEPENDENT = {
    aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default, aten.masked_select.default,
    aten._unique2.default, aten.unique_dim.default, aten.unique_consecutive.default, aten.unique_dim_consecutive.default,
    aten.bincount.default, aten.multinomial.default, aten.repeat_interleave.Tensor, aten._linalg_check_errors.default,
}  # fmt: skip
"""What CUDA's kernels read on the host: a value, or the size of the result."""
INDEXED = {
    aten.index.Tensor, aten._unsafe_index.Tensor, aten.index_put.default, aten.index_put_.default,
    aten._index_put_impl_.default,
}  # fmt: skip
MADE_FROM_NUMBERS = {aten.lift_fresh.default, aten.lift_fresh_copy.default}
"""What is left to see of ``torch.tensor(numbers, device=...)``."""
OUTSIDE = ("torch", "contextlib", __name__)
"""Modules whose frames say nothing of whose fault a read is."""


@dataclass(frozen=True, order=True)
class Place:
    """``where``: ``file.py:line`` below the package, or of another package. ``name``: of a read on purpose, else empty."""

    kind: Kind
    where: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind} at {self.where}{f' ({self.name})' if self.name else ''}"


class HostReads(TorchDispatchMode):
    """Counts, while entered, what the host waits for, by place: of every thread, backward passes included.

    It looks at devices of tensors alone, so that any device that is not the host will do.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: Counter[Place] = Counter()
        """Since the last ``lap``."""

    def lap(self) -> Counter[Place]:
        """What was found since the last call: one iteration, if it is called once in each."""
        found, self.found = self.found, Counter()
        return found

    def note(self, kind: Kind, name: str = "") -> None:
        """Count one at the line that is being run."""
        self.found[Place(kind, _where(), name)] += 1

    def __enter__(self) -> HostReads:
        _counting.append(self)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:
        _counting.remove(self)
        super().__exit__(*exception)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kind = None if _on_purpose.get() else _kind(function, args, kwargs or {})
        if kind is not None:
            self.note(kind)
        return function(*args, **(kwargs or {}))


_counting: list[HostReads] = []
_on_purpose: ContextVar[bool] = ContextVar("on_purpose", default=False)


@contextmanager
def on_purpose(name: str) -> Iterator[None]:
    """What is read inside is one read, of this name."""
    for counter in _counting:
        counter.note("read", name)
    token = _on_purpose.set(True)
    try:
        yield
    finally:
        _on_purpose.reset(token)


def read_on_host(x: Tensor, name: str) -> Tensor:
    """x on the CPU, for which the host waits if it is elsewhere.

    Args:
        name: what is read, for ``HostReads``.
    """
    if x.device.type == "cpu":
        return x
    with on_purpose(name):
        return x.cpu()


def _kind(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Kind | None:
    if function is aten._to_copy.default:
        return _copied(args[0], torch.device(kwargs.get("device") or args[0].device), bool(kwargs.get("non_blocking")))
    if function is aten.copy_.default:
        return _copied(args[1], args[0].device, bool(args[2] if len(args) > 2 else kwargs.get("non_blocking")))
    if function in MADE_FROM_NUMBERS:
        return None if _is_host(args[0]) else "upload"
    if function in DATA_DEPENDENT:
        return None if _is_host(args[0]) else "read"
    if function is aten.where.self:  # a tensor () of the host among its operands is copied inside
        return "upload" if len({_is_host(operand) for operand in args}) > 1 else None
    if function in INDEXED and not _is_host(args[0]):
        indices = [index for index in args[1] if index is not None]
        if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
            return "read"
        return "upload" if any(_is_host(index) for index in indices) else None
    return None


def _copied(source: Tensor, target: torch.device, non_blocking: bool) -> Kind | None:
    if _is_host(source) == (target.type == "cpu"):
        return None
    if target.type == "cpu":
        return "queued" if non_blocking else "read"
    pageable = target.type == "cuda" and not source.is_pinned()  # such a copy is waited for whatever was asked
    return "queued" if non_blocking and not pageable else "upload"


def _is_host(x: Tensor) -> bool:
    return x.device.type == "cpu"


def _where() -> str:
    """The innermost line that is neither torch's nor of this file: the line whose fault a read is."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if not any(module == outside or module.startswith(f"{outside}.") for outside in OUTSIDE):
            return f"{module.removeprefix('dq_toolchain.').replace('.', '/')}.py:{frame.f_lineno}"
        frame = frame.f_back
    return "autograd"
