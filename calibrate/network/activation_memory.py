"""How many bytes a network's activations take, found by running it on shapes alone: nothing is computed or allocated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from dq_toolchain.calibrate.network.sharing import with_tensors
from dq_toolchain.toolchain.models.activations import Ledger, on_shapes
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
        with torch.no_grad(), _site_inputs(fake, results) as inputs, Ledger() as forward:
            call(fake)
        for parameter in fake.requires_grad_(True).parameters():
            parameter.register_post_accumulate_grad_hook(_drop_gradient)
        with torch.enable_grad(), saving(fake), Ledger() as backward:
            call(fake).sum().backward()
    return ActivationMemory(forward.peak, backward.peak, sum(inputs))


def _on_shapes(tensor: Tensor) -> Tensor:
    fake = on_shapes(tensor)
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
