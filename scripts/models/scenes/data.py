"""Scenes and their pictures, made once from a seed and from MNIST."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from torch import Tensor

from scripts.models.digit_data import load_digits
from scripts.models.scenes.world import Scene, any_scene, paint

TYPICAL = 400
"""Of each digit: how many images are drawn from, those nearest to their mean. Few handwritings are learned faster."""


def make_pictures(
    mnist: Path | None, count: int, seed: int, *, split: str = "train", typical: bool = False
) -> tuple[list[Scene], Tensor]:
    """Scenes at random and what they look like.

    Args:
        mnist: see ``load_digits``. split: whose digits, "train" or "test".
        typical: only images near the mean of their digit.
    Returns:
        ``count`` scenes and (count, 3, 64, 64) uint8.
    """
    images, labels = load_digits(mnist, split)
    ink = (images[:, 0] + 1) / 2
    of_digit = [(labels == digit).nonzero().flatten().tolist() for digit in range(10)]
    if typical:
        of_digit = [_typical(ink, indices) for indices in of_digit]
    draw, scenes = random.Random(f"paint {seed}"), make_scenes(count, seed)
    pictures = torch.empty(count, 3, 64, 64, dtype=torch.uint8)
    for index, scene in enumerate(scenes):
        picture = paint(scene, [ink[draw.choice(of_digit[thing.digit])] for thing in scene.things], draw)
        pictures[index] = ((picture + 1) * 127.5).round().to(torch.uint8)
    return scenes, pictures


def make_scenes(count: int, seed: int) -> list[Scene]:
    """The scenes of ``make_pictures``, without what they look like."""
    draw = random.Random(seed)
    return [any_scene(draw) for _ in range(count)]


def _typical(ink: Tensor, indices: list[int]) -> list[int]:
    distance = (ink[indices] - ink[indices].mean(0)).square().sum((1, 2))
    return [indices[place] for place in distance.argsort()[:TYPICAL].tolist()]


def as_float(pictures: Tensor) -> Tensor:
    """uint8 -> float32 in [-1, 1]."""
    return pictures.float() / 127.5 - 1
