"""In which order a network calls its modules: found by running it once, never by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

from dq_toolchain.toolchain.quant.hooks import hooks


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
