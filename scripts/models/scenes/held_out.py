"""Prompts for judging and for calibration, and how many pictures show what they ask for.

    python -m scripts.models.scenes.held_out --model models/scenes --count 200 --guidance 1 3 5

draws with diffusers' own pipeline. The scenes are drawn with a seed that neither training nor the calibration prompts use.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from dq_toolchain.toolchain.verdict.features import ClassifierFeatures
from scripts.models.scenes.captions import caption
from scripts.models.scenes.judge import judge
from scripts.models.scenes.world import Scene, any_scene

SEED, CALIBRATION_SEED = 20_261_129, 64
BATCH = 25


def held_out(count: int, seed: int = SEED) -> tuple[list[Scene], list[str]]:
    """Scenes and one whole caption of each; half of them have one digit."""
    draw = random.Random(seed)
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = any_scene(draw)
        if len(scene.things) == 1 + len(scenes) % 2:
            scenes.append(scene)
    return scenes, [caption(scene, draw, whole=True) for scene in scenes]


def draw_pictures(pipeline: StableDiffusionPipeline, prompts: list[str], steps: int, guidance: float) -> Tensor:
    """(N, 3, 64, 64) in [-1, 1]; the noise of picture k is that of seed k, as in a call with this prompt alone."""
    parts = []
    for begin in range(0, len(prompts), BATCH):
        batch = prompts[begin : begin + BATCH]
        generators = [torch.Generator("cpu").manual_seed(begin + place) for place in range(len(batch))]
        drawn = pipeline(
            batch, num_inference_steps=steps, guidance_scale=guidance, generator=generators, output_type="pt"
        )
        parts.append(drawn.images * 2 - 1)
    return torch.cat(parts)


def shares(scenes: list[Scene], pictures: Tensor, classifier: ClassifierFeatures) -> dict[str, float]:
    """Of what is judged: the share of pictures in which it is as asked; "one" and "two": all of it, by number of digits."""
    verdicts = judge(scenes, pictures, classifier)
    found = {name: float(verdict.float().mean()) for name, verdict in verdicts.items()}
    for name, things in (("one", 1), ("two", 2)):
        chosen = [index for index, scene in enumerate(scenes) if len(scene.things) == things]
        found[name] = float(verdicts["all"][chosen].float().mean())
    return {name: round(share, 3) for name, share in found.items()}


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    pipeline = StableDiffusionPipeline.from_pretrained(args.model)
    pipeline.set_progress_bar_config(disable=True)
    scenes, prompts = held_out(args.count)
    classifier = ClassifierFeatures()
    for guidance in args.guidance:
        found = shares(scenes, draw_pictures(pipeline, prompts, args.steps, guidance), classifier)
        print(f"guidance {guidance:g}, {args.steps} steps, {args.count} prompts, shares as asked: {found}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/scenes"))
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--guidance", type=float, nargs="+", default=[3.0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    main(parser.parse_args())
