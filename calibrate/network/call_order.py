"""In which order a network calls its modules: found by running it once, never by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

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


def first_and_last_layer(network: nn.Module, kept: Collection[str], run: Callable[[nn.Module], object]) -> set[str]:
    """The first layer that reads the sample (one of the timestep or of a text may come before it), and the last of all.

    Raises ModelError: a layer that is to be quantized is never called, so that nothing is known of its input.
    """
    layers = dict(weighted_layers(network))
    order = order_of_calls(network, layers, run)
    idle = next((name for name in layers if name not in order and name not in kept), None)
    if idle is not None:
        raise ModelError(f"{idle} is never called in a forward pass; remove it from the network")
    return {*_first_reader(network, layers, run), *order[-1:]}


class _Reached(BaseException):
    """Ends a pass where it has shown what it was made for; no handler of a network's own errors takes it for one."""


def _first_reader(network: nn.Module, names: Iterable[str], run: Callable[[nn.Module], object]) -> list[str]:
    """The first layer to be called with what depends on the network's first argument, its sample; none if there is none."""
    found: list[str] = []

    def reach(name: str, args: tuple[Any, ...]) -> None:
        if any(isinstance(value, Tensor) and value.requires_grad for value in args):
            found.append(name)
            raise _Reached

    handles = (
        network.get_submodule(name).register_forward_pre_hook(lambda _module, args, name=name: reach(name, args))
        for name in names
    )
    root = network.register_forward_pre_hook(
        lambda _module, args, keywords: _followed(args, keywords), with_kwargs=True
    )
    with hooks(handles), hooks([root]), torch.enable_grad(), suppress(_Reached):
        run(network)
    return found


def _followed(args: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments, of which the first is part of a graph. Weights are not: what is in the graph depends on the sample."""
    if args:
        return (_in_graph(args[0]), *args[1:]), keywords
    first = next(iter(keywords))
    return args, {**keywords, first: _in_graph(keywords[first])}


def _in_graph(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_in_graph(each) for each in value]
    return value.detach().requires_grad_().clone() if isinstance(value, Tensor) else value
