"""In which order a network calls its modules: found by running it once, never by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import torch
from torch import nn

from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.quant.hooks import hooks
from dq_toolchain.toolchain.quant.sites import weighted_layers


def order_of_calls(network: nn.Module, names: Iterable[str], run: Callable[[nn.Module], object]) -> list[str]:
    """Those of ``names`` that ``run`` reaches, each once, by their first call.

    Args:
        run: calls the network once on a representative input.
    """
    order: dict[str, None] = {}
    handles = (
        network.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: order.setdefault(name))
        for name in names
    )
    with hooks(handles), torch.no_grad():
        run(network)
    return list(order)


def first_and_last_convolution(
    network: nn.Module, kept: Collection[str], run: Callable[[nn.Module], object]
) -> set[str]:
    """Raises ModelError: a layer that is to be quantized is never called, so that nothing is known of its input."""
    layers = dict(weighted_layers(network))
    order = order_of_calls(network, layers, run)
    idle = next((name for name in layers if name not in order and name not in kept), None)
    if idle is not None:
        raise ModelError(f"{idle} is never called in a forward pass; remove it from the network")
    convolutions = [name for name in order if not isinstance(layers[name], nn.Linear)]
    return {convolutions[0], convolutions[-1]} if convolutions else set()
