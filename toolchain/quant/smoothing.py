"""Convolutions whose input channels are divided before they are quantized, the weights multiplied in turn.

The float function is unchanged; integers of channels that used to be large or small become alike. In the exported
model it is one multiplication in float in front of the quantization.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


class SmoothedConv2d(nn.Module):
    """conv(x * factor) with ``factor`` (in,) 1 / divisor, whose ``conv`` carries the multiplied weights."""

    def __init__(self, conv: nn.Conv2d, divisor: Tensor) -> None:
        super().__init__()
        if conv.groups != 1 or divisor.shape != (conv.in_channels,):
            raise ValueError(
                f"cannot divide {conv.in_channels} channels in {conv.groups} groups by {tuple(divisor.shape)}"
            )
        self.factor = nn.Parameter(1 / divisor, requires_grad=False)
        self.conv = conv
        self.conv.weight = nn.Parameter(conv.weight.detach() * divisor.view(1, -1, 1, 1), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x * self.factor.view(-1, 1, 1))
        return out


def smooth_inputs(network: nn.Module, divisors: Mapping[str, Tensor]) -> None:
    """Replace the named convolutions by SmoothedConv2d, in place."""
    for name, divisor in divisors.items():
        conv = network.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        network.set_submodule(name, SmoothedConv2d(conv, divisor))


def smooth_by_one(network: nn.Module, names: Iterable[str]) -> None:
    """The same structure with divisors of one, for parameters that are loaded afterwards."""
    convolutions = {name: network.get_submodule(name) for name in names}
    smooth_inputs(
        network,
        {
            name: torch.ones(conv.in_channels, device=conv.weight.device)
            for name, conv in convolutions.items()
            if isinstance(conv, nn.Conv2d)
        },
    )
