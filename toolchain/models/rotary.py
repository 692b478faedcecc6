"""Rotary positions as tables: what a network computes of positions that never change, in float64, once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class RotaryTable(nn.Module):
    """Stands where diffusers' module computes cosines and sines from position ids: the network is given the tables as its ids.

    Args:
        picture, text: (cosines, sines) of the two kinds of tokens, each (tokens, channels).
    """

    picture: Tensor
    text: Tensor

    def __init__(self, picture: tuple[Tensor, Tensor], text: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.register_buffer("picture", torch.cat(picture, dim=1), persistent=False)
        self.register_buffer("text", torch.cat(text, dim=1), persistent=False)

    def forward(self, table: Tensor) -> tuple[Tensor, Tensor]:
        """(tokens, 2 * channels) -> cosines, sines; networks may have joined the tables of text and picture before."""
        middle = table.shape[1] // 2
        return table[:, :middle], table[:, middle:]


class RealRotary(nn.Module):
    """Stands where diffusers' module gives complex numbers for picture and text: cosines and sines of both, text first."""

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self.source = source

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """(text and picture, channels of a head) each, every number twice: once for each of the pair that it turns."""
        picture, text = self.source(*args, **kwargs)
        turns = torch.cat([text, picture]).repeat_interleave(2, dim=-1)
        return turns.real.contiguous(), turns.imag.contiguous()


class FixedRotary(nn.Module):
    """Cosines and sines, whatever it is asked: of sizes that never change."""

    cosines: Tensor
    sines: Tensor

    def __init__(self, cosines: Tensor, sines: Tensor) -> None:
        super().__init__()
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)

    def forward(self, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        return self.cosines, self.sines
