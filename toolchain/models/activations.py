"""How many bytes a module's activations take, found by running it on shapes alone: nothing is computed or allocated."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class Activations:
    """Bytes in a pass without gradient. ``peak``: the most at one time. ``largest``: of one tensor."""

    peak: int
    largest: int

    @property
    def on_cpu(self) -> int:
        """With the copy in another layout that oneDNN makes of a convolution's input."""
        return self.peak + self.largest


def activations_of(module: nn.Module, inputs: Sequence[Tensor]) -> Activations:
    """What one call makes. The module's parameters and buffers become shapes: give one that nothing else uses."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        for each in module.modules():
            for name, parameter in each._parameters.items():
                if parameter is not None:
                    each._parameters[name] = nn.Parameter(on_shapes(parameter), requires_grad=False)
            for name, buffer in each._buffers.items():
                if buffer is not None:
                    each._buffers[name] = on_shapes(buffer)
        fake = [on_shapes(each) for each in inputs]
        with Ledger() as ledger:
            module(*fake)
    return Activations(ledger.peak, ledger.largest)


def on_shapes(tensor: Tensor) -> Tensor:
    """The tensor's shape without memory, on the CPU: bytes are the same everywhere; to be called inside a FakeTensorMode."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")


class Ledger(TorchDispatchMode):
    """Adds up the storages that operations make, and takes them off when they are freed.

    Attributes:
        in_use: bytes now. peak: the most at one time. largest: of one storage.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.in_use = self.peak = self.largest = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        out = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in self._seen | given:
                self._note(leaf.untyped_storage())
        return out

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._seen.add(key)
        self.in_use += size
        self.peak, self.largest = max(self.peak, self.in_use), max(self.largest, size)
        weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.in_use -= size
