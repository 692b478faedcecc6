"""Prompts that no training caption was drawn with, and how many of their pictures show what they ask for."""

from __future__ import annotations

import random

from torch import Tensor

from dq_toolchain.toolchain.verdict.features import ClassifierFeatures
from scripts.models.scenes.captions import caption
from scripts.models.scenes.judge import judge
from scripts.models.scenes.world import Scene, any_scene

SEED = 20_261_129


def held_out(count: int, seed: int = SEED) -> tuple[list[Scene], list[str]]:
    """Scenes and one whole caption of each; half of them have one digit."""
    draw = random.Random(seed)
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = any_scene(draw)
        if len(scene.things) == 1 + len(scenes) % 2:
            scenes.append(scene)
    return scenes, [caption(scene, draw, whole=True) for scene in scenes]


def shares(scenes: list[Scene], pictures: Tensor, classifier: ClassifierFeatures) -> dict[str, float]:
    """Of what is judged: the share of pictures in which it is as asked; "one" and "two": all of it, by number of digits."""
    verdicts = judge(scenes, pictures, classifier)
    found = {name: float(verdict.float().mean()) for name, verdict in verdicts.items()}
    for name, things in (("one", 1), ("two", 2)):
        chosen = [index for index, scene in enumerate(scenes) if len(scene.things) == things]
        found[name] = float(verdicts["all"][chosen].float().mean())
    return {name: round(share, 3) for name, share in found.items()}
