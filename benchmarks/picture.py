"""The README's picture: samples of a bundle in FP32, on the device, and their difference.

python -m benchmarks.picture dq-out/executorch docs/images/samples.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from dq_toolchain.toolchain.metrics import to_unit
from dq_toolchain.toolchain.render.pictures import strip
from dq_toolchain.toolchain.verdict.judge import validate

ZOOM, GAP = 2, 6


def picture(bundle: Path) -> Image.Image:
    """Two rows of samples each: FP32, device, five times the difference around grey."""
    verdict = validate(bundle / "report.json", bundle)
    fp32 = verdict.reference.fp32_latents[-1][:20]
    wanted, got = to_unit(fp32, fp32), to_unit(verdict.report.latents[-1][:20], fp32)
    difference = (0.5 + 2.5 * (got - wanted)).clamp(0, 1)
    strips = [strip(images) for images in (wanted, got, difference)]
    gap = np.full((GAP, *strips[0].shape[1:]), 255, np.uint8)
    sheet = Image.fromarray(np.concatenate([strips[0], gap, strips[1], gap, strips[2]]))
    return sheet.resize((sheet.width * ZOOM, sheet.height * ZOOM), Image.Resampling.NEAREST)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    picture(arguments.bundle).save(arguments.out)
