"""Rotary positions as tables: what a network computes of positions that never change, in float64, once."""

from __future__ import annotations

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
