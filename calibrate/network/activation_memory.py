"""How many bytes a network's activations take, found by running it on shapes alone: nothing is computed or allocated."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dq_toolchain.calibrate.network.sharing import with_tensors
from dq_toolchain.toolchain.quant.hooks import hooks
from dq_toolchain.toolchain.quant.sites import weighted_layers

Call = Callable[[nn.Module], Tensor]


@dataclass(frozen=True)
class ActivationMemory:
    """Bytes of activations at one time, parameters and their gradients aside.

    Attributes:
        forward: the most in a pass without gradient.
        backward: the most in a pass with gradient and its backward.
        inputs: of all sites together, which a quantizer keeps beside what the layer keeps; of results too if they are sites.
    """

    forward: int
    backward: int
    inputs: int


def activation_memory_of(
    network: nn.Module,
    call: Call,
    saving: Callable[[nn.Module], AbstractContextManager[None]] = lambda _network: nullcontext(),
    *,
    results: bool = False,
) -> ActivationMemory:
    """What ``call`` makes of the network, wherever it is.

    Args:
        call: runs the network once, on the CPU; real tensors that it hands over become shapes.
        saving: what is around the pass with gradient, such as ``checkpointed``.
        results: what layers give is quantized as well.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake = with_tensors(network, _on_shapes)
        with torch.no_grad(), _site_inputs(fake, results) as inputs, _Ledger() as forward:
            call(fake)
        for parameter in fake.requires_grad_(True).parameters():
            parameter.register_post_accumulate_grad_hook(_drop_gradient)
        with torch.enable_grad(), saving(fake), _Ledger() as backward:
            call(fake).sum().backward()
    return ActivationMemory(forward.peak, backward.peak, sum(inputs))


def _on_shapes(tensor: Tensor) -> Tensor:
    """The tensor's shape without memory, on the CPU: bytes are the same everywhere; to be called inside a FakeTensorMode."""
    fake = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
    return nn.Parameter(fake, requires_grad=False) if isinstance(tensor, nn.Parameter) else fake


def _drop_gradient(parameter: Tensor) -> None:
    parameter.grad = None


@contextmanager
def _site_inputs(network: nn.Module, results: bool) -> Iterator[list[int]]:
    found: list[int] = []

    def note(_layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        found.append(inputs[0].nbytes + (out.nbytes if results else 0))

    with hooks(layer.register_forward_hook(note) for _, layer in weighted_layers(network)):
        yield found


class _Ledger(TorchDispatchMode):
    """Adds up the storages that operations make, and takes them off when they are freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.in_use = self.peak = 0
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
        self.peak = max(self.peak, self.in_use)
        weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.in_use -= size
