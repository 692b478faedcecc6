"""What the model draws: one or two coloured digits on a coloured background.

A `Scene` is drawn from handwritten digits; `captions` says it in words. Pictures are 64x64, in [-1, 1].
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 64
COLOURS = {
    "red": (0.86, 0.12, 0.12),
    "orange": (1.0, 0.55, 0.05),
    "yellow": (0.98, 0.90, 0.18),
    "green": (0.10, 0.62, 0.20),
    "blue": (0.12, 0.25, 0.85),
    "purple": (0.52, 0.16, 0.66),
    "pink": (1.0, 0.62, 0.78),
    "white": (0.97, 0.97, 0.97),
    "black": (0.04, 0.04, 0.05),
}
"""sRGB in [0, 1]."""

ALONE = {"small": 23.0, "": 34.0, "large": 48.0}
TOGETHER = {"small": 19.0, "": 25.0, "large": 32.0}
"""Height of a digit in pixels, when it is alone and when there are two."""

PLACES = {
    "middle": (0.0, 0.0),
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "top": (0.0, -1.0),
    "bottom": (0.0, 1.0),
}
"""Of a digit alone: the direction from the middle, (right, down). A small digit goes further than a large one."""
MARGIN, APART = 4.0, 16.0
"""Between a digit at the side and the edge; from the middle to each of two digits. In pixels."""


@dataclass(frozen=True)
class Thing:
    """One digit: which, its colour and its size (a key of `ALONE`)."""

    digit: int
    colour: str
    size: str


@dataclass(frozen=True)
class Scene:
    """One thing at a place, or two: ``beside`` (first is left) or ``stacked`` (first is above).

    Attributes:
        place: a key of `PLACES`, or "beside" or "stacked".
    """

    things: tuple[Thing, ...]
    background: str
    place: str

    def spots(self) -> list[tuple[float, float, float]]:
        """Of each thing: the middle (right, down) and the height, in pixels."""
        half = SIDE / 2
        if len(self.things) == 1:
            height = ALONE[self.things[0].size]
            reach = half - MARGIN - height / 2
            right, down = PLACES[self.place]
            return [(half + right * reach, half + down * reach, height)]
        heights = [TOGETHER[thing.size] for thing in self.things]
        if self.place == "beside":
            return [(half + sign * APART, half, height) for sign, height in zip((-1, 1), heights, strict=True)]
        return [(half, half + sign * APART, height) for sign, height in zip((-1, 1), heights, strict=True)]


def any_scene(draw: random.Random) -> Scene:
    """A scene at random; two in three have one digit."""

    def thing(background: str) -> Thing:
        colour = draw.choice([name for name in COLOURS if name != background])
        return Thing(draw.randrange(10), colour, draw.choice(list(ALONE)))

    background = draw.choice(list(COLOURS))
    if draw.random() < 2 / 3:
        return Scene((thing(background),), background, draw.choice(["middle", *PLACES]))
    return Scene((thing(background), thing(background)), background, draw.choice(["beside", "beside", "stacked"]))


def paint(scene: Scene, digits: list[Tensor], draw: random.Random) -> Tensor:
    """The picture of a scene.

    Args:
        digits: one handwritten digit per thing, (28, 28) float in [0, 1].
    Returns:
        (3, 64, 64) float32 in [-1, 1]. Places and colours vary a little, and the light falls from one side.
    """
    picture = _tint(scene.background, draw)[:, None, None].expand(3, SIDE, SIDE)
    for thing, ink, (x, y, height) in zip(scene.things, digits, scene.spots(), strict=True):
        alpha = _placed(ink, x + draw.uniform(-1, 1), y + draw.uniform(-1, 1), height * draw.uniform(0.95, 1.05))
        picture = picture * (1 - alpha) + _tint(thing.colour, draw)[:, None, None] * alpha
    line = torch.linspace(-1, 1, SIDE)
    angle, light = draw.uniform(0, 2 * math.pi), 0.06 * draw.random()
    shade = 1 + light * (math.cos(angle) * line[None, :] + math.sin(angle) * line[:, None])
    return (picture * shade).clamp(0, 1) * 2 - 1


def _tint(colour: str, draw: random.Random) -> Tensor:
    return (torch.tensor(COLOURS[colour]) + torch.tensor([draw.uniform(-0.04, 0.04) for _ in range(3)])).clamp(0, 1)


def _placed(ink: Tensor, x: float, y: float, height: float) -> Tensor:
    """(64, 64) in [0, 1]: the digit's own box, the longer side ``height`` pixels long, around (x, y)."""
    rows, columns = (ink > 0.2).any(1).nonzero().flatten(), (ink > 0.2).any(0).nonzero().flatten()
    box = ink[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1]
    zoom = height / max(box.shape)
    size = [max(2, round(side * zoom)) for side in box.shape]
    big = F.interpolate(box[None, None], size, mode="bicubic", antialias=True)[0, 0].clamp(0, 1)
    top, left = (round(middle - side / 2) for middle, side in zip((y, x), size, strict=True))
    top, left = (min(max(0, start), SIDE - side) for start, side in zip((top, left), size, strict=True))
    canvas = torch.zeros(SIDE, SIDE)
    canvas[top : top + size[0], left : left + size[1]] = big
    return canvas
