"""Rotary positions as tables: what a network computes of positions that never change, in float64, once."""

from __future__ import annotations

from collections.abc import Sequence
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


def turns(positions: Tensor, channels: Sequence[int], theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines, (tokens, sum of channels) float32 each, every number twice: once for each of the pair that it turns.

    Args:
        positions: (tokens, axes) whole numbers. channels: of a head, for each axis. dtype: that angles are computed in.
    """
    angles = []
    for axis, count in enumerate(channels):
        rates = 1.0 / theta ** (torch.arange(0, count, 2, dtype=dtype, device=positions.device) / count)
        angles.append(torch.outer(positions[:, axis].to(dtype), rates))
    twice = torch.cat(angles, dim=1).float().repeat_interleave(2, dim=1)
    return twice.cos(), twice.sin()


class CentredRotary(nn.Module):
    """Stands where Qwen-Image's module gives complex numbers: positions of a picture are 0 in its middle, text begins behind it.

    Source: diffusers, ``QwenEmbedRope`` with ``scale_rope``.
    """

    def __init__(self, channels: Sequence[int], theta: float) -> None:
        super().__init__()
        self.channels, self.theta = tuple(channels), theta

    def forward(
        self, shapes: Sequence[Sequence[tuple[int, int, int]]], max_txt_seq_len: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Cosines and sines (T + N, channels of a head) of text, then picture. ``shapes``: ((1, height, width),) of each sample."""
        ((_, height, width),) = shapes[0]
        sides = (torch.arange(side, device=device) - (side - side // 2) for side in (height, width))
        rows, columns = torch.meshgrid(*sides, indexing="ij")
        picture = torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3)
        begin = max(height // 2, width // 2)
        text = torch.arange(begin, begin + max_txt_seq_len, device=device)[:, None].expand(-1, 3)
        return turns(torch.cat([text, picture]), self.channels, self.theta, torch.float32)


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
