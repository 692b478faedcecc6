"""The picture of the model card: prompts and what diffusers' pipeline draws for them.

python -m scripts.models.scenes.picture --model models/scenes --out docs/images/scenes.png
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw, ImageFont

PROMPTS = (
    "a large red seven on a blue background",
    "a small yellow 3 at the top on a purple background",
    "a white eight on green",
    "a large black zero on an orange background",
    "a small blue four on the left on white",
    "a pink nine on the right on a black background",
    "a large green two left of a small white 5 on a black background",
    "a red 6 to the left of a blue 1 on yellow",
    "an orange four above a white seven on a purple background",
    "a small black 0 right of a large white 3 on a red background",
)
COLUMNS, SCALE, LINES, GAP = 5, 2, 3, 8


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    pipeline = StableDiffusionPipeline.from_pretrained(args.model)
    pipeline.set_progress_bar_config(disable=True)
    pictures = [
        pipeline(
            prompt,
            num_inference_steps=args.steps,
            guidance_scale=args.guidance,
            generator=torch.Generator("cpu").manual_seed(args.seed),
        ).images[0]
        for prompt in PROMPTS
    ]
    side, font = pictures[0].width * SCALE, ImageFont.load_default(11)
    line = 14
    cell, rows = (side + GAP, side + LINES * line + GAP), -(-len(PROMPTS) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * cell[0] + GAP, rows * cell[1] + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (prompt, picture) in enumerate(zip(PROMPTS, pictures, strict=True)):
        left, top = GAP + index % COLUMNS * cell[0], GAP + index // COLUMNS * cell[1]
        sheet.paste(picture.resize((side, side), Image.Resampling.BICUBIC), (left, top))
        for number, words in enumerate(textwrap.wrap(prompt, 24)[:LINES]):
            pen.text((left, top + side + number * line), words, "black", font)
    sheet.quantize(256).save(args.out, optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/scenes"))
    parser.add_argument("--out", type=Path, default=Path("docs/images/scenes.png"))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    main(parser.parse_args())
