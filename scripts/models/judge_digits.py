"""How many samples of the embedded model are classified as the digit asked for, by the classifier that ships with it.

python -m scripts.models.judge_digits --guidance 1 2 3
"""

from __future__ import annotations

import argparse

import torch
from diffusers import UNet2DModel

from dq_toolchain.toolchain.models.embedded import EMBEDDED
from dq_toolchain.toolchain.verdict.features import ClassifierFeatures
from scripts.models.train_digits import sample_grid

ROWS = 16


def main(guidances: list[float], steps: int) -> None:
    unet = UNet2DModel.from_pretrained(EMBEDDED / "unet").eval()
    classifier, asked = ClassifierFeatures(), torch.arange(10).repeat(ROWS)
    for guidance in guidances:
        right = classifier.labels(sample_grid(unet, guidance, ROWS, steps)) == asked
        print(f"guidance {guidance:g}, {steps} steps: {int(right.sum())} of {len(right)} as asked")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 2.0, 3.0])
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    main(arguments.guidance, arguments.steps)
