"""Hand-written modules that denoise: no class of diffusers, every kind of layer that gets integers."""

from __future__ import annotations

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WORDS = 3
"""Width of their conditioning."""


class Wave(nn.Module):
    """Rows of two channels, (B, 2, T), through Conv1d, ConvTranspose1d and Linear; conditioning ``words`` (B, 3)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.into = nn.Conv1d(2, width, 3, padding=1)
        self.down = nn.Conv1d(width, width, 4, stride=2, padding=1, groups=2)
        self.time = nn.Linear(2, width)
        self.words = nn.Linear(WORDS, width, bias=False)
        self.up = nn.ConvTranspose1d(width, width, 4, stride=2, padding=1)
        self.out = nn.Conv1d(width, 2, 3, padding=1)

    def forward(self, sample: Tensor, timestep: Tensor, words: Tensor) -> Tensor:
        angle = timestep[:, None] / 1000 * 3.1416
        told = self.time(torch.cat([angle.sin(), angle.cos()], dim=1)) + self.words(words)
        whole = F.silu(self.into(sample))
        half = F.silu(self.down(whole) + told[:, :, None])
        out: Tensor = self.out(F.silu(self.up(half) + whole))
        return out


class Picture(nn.Module):
    """Pictures of one channel, (B, 1, H, W), through Conv2d, ConvTranspose2d of two groups and Linear; gives an object."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.into = nn.Conv2d(1, width, 3, padding=1)
        self.down = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.time = nn.Linear(2, width)
        self.up = nn.ConvTranspose2d(width, width, 3, stride=2, padding=1, output_padding=1, groups=2)
        self.out = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, sample: Tensor, timestep: Tensor) -> SimpleNamespace:
        angle = timestep[:, None] / 1000 * 3.1416
        told = self.time(torch.cat([angle.sin(), angle.cos()], dim=1))
        whole = F.silu(self.into(sample))
        half = F.silu(self.down(whole) + told[:, :, None, None])
        return SimpleNamespace(sample=self.out(F.silu(self.up(half) + whole)))


def wave(seed: int = 0) -> Wave:
    torch.manual_seed(seed)
    return Wave()


def picture(seed: int = 0) -> Picture:
    torch.manual_seed(seed)
    return Picture()


def words(rows: int = 5) -> dict[str, Tensor]:
    return {"words": torch.randn(rows, WORDS, generator=torch.Generator().manual_seed(3))}
