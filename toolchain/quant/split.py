"""Convolutions that read a concatenation, cut in two so that each half gets its own range.

The halves of a network skip concatenation have different ranges (Q-Diffusion, Li et al. 2023, section 4.3); a sum of
two convolutions is the same function and gives each half its own site. Found by running the network, not by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dq_toolchain.toolchain.quant.hooks import hooks
from dq_toolchain.toolchain.quant.sites import weighted_layers


class SplitConv2d(nn.Module):
    """The sum of one Conv2d per channel slice of the input; the first carries the bias."""

    def __init__(self, conv: nn.Conv2d, channels: Sequence[int]) -> None:
        super().__init__()
        if sum(channels) != conv.in_channels or conv.groups != 1:
            raise ValueError(f"cannot split {conv.in_channels} channels in {conv.groups} groups into {tuple(channels)}")
        self.channels = tuple(channels)
        self.parts = nn.ModuleList()
        for index, weight in enumerate(conv.weight.split(self.channels, dim=1)):
            geometry: dict[str, Any] = {
                "kernel_size": conv.kernel_size,
                "stride": conv.stride,
                "padding": conv.padding,
                "dilation": conv.dilation,
            }
            part = nn.Conv2d(
                weight.shape[1], conv.out_channels, bias=conv.bias is not None and index == 0, device="meta", **geometry
            )
            part.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
            if part.bias is not None and conv.bias is not None:
                part.bias = nn.Parameter(conv.bias.detach().clone(), requires_grad=False)
            self.parts.append(part)

    def forward(self, x: Tensor) -> Tensor:
        pieces = x.split(self.channels, dim=1)
        total: Tensor = self.parts[0](pieces[0])
        for part, piece in zip(self.parts[1:], pieces[1:], strict=True):
            total = total + part(piece)
        return total


class _CatRecorder(TorchFunctionMode):
    """Remembers the channel sizes behind every concatenated tensor while the network runs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, tuple[int, ...]] = {}
        self.alive: list[Tensor] = []

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.cat and isinstance(out, Tensor) and out.dim() == 4 and len(args[0]) > 1:
            self.seen[out.data_ptr()] = tuple(piece.shape[1] for piece in args[0])
            self.alive.append(out)
        return out


def find_concat_inputs(network: nn.Module, run: Callable[[], object]) -> dict[str, tuple[int, ...]]:
    """Convolutions whose input is a channel concatenation, with the channel sizes.

    Args:
        run: calls the network once on any input of the right shape.
    """
    found: dict[str, tuple[int, ...]] = {}
    recorder = _CatRecorder()

    def look(name: str, inputs: tuple[Any, ...]) -> None:
        sizes = recorder.seen.get(inputs[0].data_ptr())
        if sizes is not None and sum(sizes) == inputs[0].shape[1]:
            found[name] = sizes

    handles = (
        module.register_forward_pre_hook(lambda _module, inputs, name=name: look(name, inputs))
        for name, module in weighted_layers(network)
        if isinstance(module, nn.Conv2d) and module.groups == 1
    )
    with hooks(handles), torch.no_grad(), recorder:
        run()
    return found


def split_concat_inputs(network: nn.Module, splits: Mapping[str, Sequence[int]]) -> None:
    """Replace the named convolutions by SplitConv2d, in place; the float function is unchanged."""
    for name, channels in splits.items():
        conv = network.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        network.set_submodule(name, SplitConv2d(conv, channels))
