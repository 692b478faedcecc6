"""Whether a picture shows what was asked for: background, and of each digit which it is, its colour, size and place.

The digit classifier that ships with dq-toolchain reads the digits; the rest is measured in the pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dq_toolchain.toolchain.verdict.features import ClassifierFeatures
from scripts.models.scenes.world import ALONE, COLOURS, SIDE, TOGETHER, Scene

INK, FAINT, FULL = 0.5, 0.12, 0.8
"""Of the strongest difference from the background: what is a digit, and what shows its colour. A picture whose strongest
difference is below ``FAINT`` (sRGB, 0 to 1) shows no digit."""
BOX, FIELD = 20, 28
"""MNIST: a digit's longer side and the side of the field it stands in."""
ASTRAY = 5.0
"""How far a digit may be from its place, in pixels."""


@dataclass(frozen=True)
class Seen:
    """What stands in a part of a picture: digit and colour (None: nothing), middle and longer side in pixels."""

    digit: int | None
    colour: str | None
    x: float
    y: float
    height: float


def judge(scenes: list[Scene], pictures: Tensor, classifier: ClassifierFeatures) -> dict[str, Tensor]:
    """Of each picture, what is as asked.

    Args:
        pictures: (N, 3, 64, 64) in [-1, 1].
    Returns:
        (N,) bool under "background", "digits", "colours", "sizes", "places" and "all".
    """
    found: dict[str, list[bool]] = {key: [] for key in ("background", "digits", "colours", "sizes", "places")}
    for scene, picture in zip(scenes, pictures, strict=True):
        rgb = (picture.clamp(-1, 1) + 1) / 2
        background = _border(rgb)
        found["background"].append(_nearest(background) == scene.background)
        seen = [_look(rgb, background, area, classifier) for area in _areas(scene)]
        wanted = list(zip(scene.things, scene.spots(), seen, strict=True))
        found["digits"].append(all(s.digit == thing.digit for thing, _spot, s in wanted))
        found["colours"].append(all(s.colour == thing.colour for thing, _spot, s in wanted))
        found["sizes"].append(all(_size(s.height, len(seen)) == thing.size for thing, _spot, s in wanted))
        found["places"].append(all(max(abs(s.x - at[0]), abs(s.y - at[1])) < ASTRAY for _thing, at, s in wanted))
    verdicts = {key: torch.tensor(values) for key, values in found.items()}
    return verdicts | {"all": torch.stack(list(verdicts.values())).all(0)}


def _nearest(rgb: Tensor) -> str:
    return min(COLOURS, key=lambda name: float((rgb - torch.tensor(COLOURS[name])).square().sum()))


def _size(height: float, things: int) -> str:
    sizes = ALONE if things == 1 else TOGETHER
    return min(sizes, key=lambda name: abs(math.log(max(height, 1.0) / sizes[name])))


def _border(rgb: Tensor) -> Tensor:
    """(3,): the median colour of the outermost two pixels all around."""
    edge = torch.ones(SIDE, SIDE, dtype=torch.bool)
    edge[2:-2, 2:-2] = False
    return rgb[:, edge].median(1).values


def _areas(scene: Scene) -> list[tuple[slice, slice]]:
    """Rows and columns where each thing belongs."""
    first, second, whole = slice(0, SIDE // 2), slice(SIDE // 2, SIDE), slice(0, SIDE)
    if len(scene.things) == 1:
        return [(whole, whole)]
    if scene.place == "beside":
        return [(whole, first), (whole, second)]
    return [(first, whole), (second, whole)]


def _look(rgb: Tensor, background: Tensor, area: tuple[slice, slice], classifier: ClassifierFeatures) -> Seen:
    part = rgb[:, area[0], area[1]]
    away = (part - background[:, None, None]).norm(dim=0)
    strongest = float(away.flatten().kthvalue(away.numel() - 8).values)
    if strongest < FAINT:
        return Seen(None, None, math.nan, math.nan, 0.0)
    strength = (away / strongest).clamp(0, 1)
    rows, columns = ((strength > INK).any(axis).nonzero().flatten() for axis in (1, 0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    height, width = bottom - top, right - left
    zoom = BOX / max(height, width)
    size = [max(1, round(height * zoom)), max(1, round(width * zoom))]
    box = F.interpolate(strength[None, None, top:bottom, left:right], size, mode="bilinear", antialias=True)
    before = [(FIELD - side) // 2 for side in size]
    padding = (before[1], FIELD - size[1] - before[1], before[0], FIELD - size[0] - before[0])
    digit = int(classifier.labels(F.pad(box, padding) * 2 - 1)[0])
    colour = _nearest(part[:, strength > FULL].mean(1))
    x, y = left + width / 2 + area[1].start, top + height / 2 + area[0].start
    return Seen(digit, colour, x, y, float(max(height, width)))
