"""Random views of training images, so that a classifier does not depend on where and how a thing is drawn."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

PADDING, HOLE = 4, 8
"""Of photographs, in pixels: how far a crop may be off, and the side of the square that is painted grey."""


def digit_views(x: Tensor, generator: torch.Generator) -> Tensor:
    """Shifts, rotations, zoom, contrast, noise: what a sampler or a quantizer does to a stroke.

    (B, 1, 28, 28) in [-1, 1] -> the same shape.
    """

    def uniform(limit: float, *shape: int) -> Tensor:
        return (torch.rand(shape, generator=generator) * 2 - 1) * limit

    count = len(x)
    angle, zoom, shear = uniform(math.radians(12), count), 1 + uniform(0.12, count), uniform(0.15, count)
    rows = torch.stack(
        [
            torch.stack([angle.cos() * zoom, (shear - angle.sin()) * zoom], 1),
            torch.stack([angle.sin() * zoom, angle.cos() * zoom], 1),
        ],
        1,
    )
    theta = torch.cat([rows, uniform(2 / 14, count, 2).unsqueeze(2)], 2)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    contrast = 1 - 0.25 * torch.rand(count, 1, 1, 1, generator=generator)
    moved = F.grid_sample(x + 1, grid, align_corners=False) * contrast - 1
    noise = torch.randn(x.shape, generator=generator) * 0.2 * torch.rand(count, 1, 1, 1, generator=generator)
    return (moved + noise).clamp(-1, 1)


def photograph_views(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mirroring, crops of the padded image, and a grey square anywhere (cutout): (B, C, S, S) in [-1, 1] -> the same."""
    count, size = len(x), x.shape[-1]

    def draw(end: int) -> Tensor:
        return torch.randint(end, (count, 1), generator=generator)

    line = torch.arange(size)
    mirrored = torch.where(draw(2) == 1, line.flip(0), line)
    rows, columns = line + draw(2 * PADDING + 1), mirrored + draw(2 * PADDING + 1)
    padded = F.pad(x, (PADDING,) * 4, mode="reflect").permute(0, 2, 3, 1)
    cropped = padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    down, right = (line - draw(size) + HOLE // 2 for _ in range(2))
    hole = ((down >= 0) & (down < HOLE))[:, :, None] & ((right >= 0) & (right < HOLE))[:, None, :]
    return cropped.masked_fill(hole[..., None], 0.0).permute(0, 3, 1, 2)
