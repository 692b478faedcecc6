"""Golden vectors for `generate --image`: what a run that begins with a picture needs beside those of ``generate``.

    python -m scripts.golden.generate

Each case has image.png beside arguments.json; a program is given both, as `--image image.png ARGUMENTS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dq_toolchain.toolchain.sampler.start_probe import probe_starts
from dq_toolchain.toolchain.sampler.starts import Start, chosen_start
from dq_toolchain.toolchain.sampler.table import SamplerTable

FILE = "image.png"


@dataclass(frozen=True)
class FromImage:
    """What a case begins with. ``mode``: of Pillow, of the file. ``deviates``: its encoder gives a deviation too."""

    strength: float
    rounds: str
    mode: str
    deviates: bool

    @property
    def outputs(self) -> tuple[str, ...]:
        return ("mean", "deviation") if self.deviates else ("mean",)

    def start(self, starts: tuple[Start, ...]) -> Start:
        return chosen_start(starts, self.strength, self.rounds)

    def key(self, channels: int, side: int, tables: dict[int, tuple[Any, SamplerTable, float]]) -> dict[str, Any]:
        """``image_to_image`` of pipeline.json. ``tables``: by steps, scheduler, table and eta."""
        starts = {
            str(steps): [start.to_json() for start in probe_starts(scheduler, steps, table, eta=eta)]
            for steps, (scheduler, table, eta) in tables.items()
        }
        return {
            "program": "parts/vae_encoder.bin", "channels": channels, "height": side, "width": side,
            "outputs": list(self.outputs), "start_rounds": self.rounds, "starts": starts,
        }  # fmt: skip

    def write_image(self, path: Path, side: int) -> Tensor:
        """Write a picture of colours and an edge; gives (1, 3, H, W) in [-1, 1] as a program reads it."""
        y, x = np.mgrid[:side, :side]
        rows = np.stack([20 * x, 255 - 18 * y, (x > y) * 200 + 7], -1).clip(0, 255).astype(np.uint8)
        image = Image.fromarray(rows).convert(self.mode)
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        values = torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)[None]
        return values.to(torch.float32) / 255 * 2 - 1


def encoded(picture: Tensor, channels: int, outputs: Sequence[str]) -> dict[str, Tensor]:
    """(1, 3, 2 h, 2 w) -> mean and deviation (1, channels, h, w), from formulas in float64, rounded."""
    small = torch.nn.functional.avg_pool2d(picture.double(), 2)
    axis = torch.arange(channels, dtype=torch.float64).view(1, -1, 1, 1)
    mean = small[:, [c % 3 for c in range(channels)]] * 0.9 + 0.1 * axis
    found = {"mean": mean.float(), "deviation": (0.1 + 0.05 * torch.sin(3 * mean)).float()}
    return {name: found[name] for name in outputs}
