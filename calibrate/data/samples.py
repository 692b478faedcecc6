"""Start noise and conditioning of calibration and held-out samples, each sample from its own seed.

Held-out seeds do not depend on the calibration seed: runs with different calibration seeds are validated on the same
pictures, and no held-out sample is ever fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dq_toolchain.calibrate.data.conditioning import in_turn
from dq_toolchain.toolchain.sampler.conditioning import Conditioning
from dq_toolchain.toolchain.sampler.table import SamplerTable

HELD_OUT = 2**40
FIT_STRIDE = 2**20
"""Seeds: held-out sample i uses HELD_OUT + i; calibration sample i of seed s uses s * FIT_STRIDE + i < HELD_OUT."""


@dataclass(frozen=True)
class Samples:
    """``start`` (M, C, H, W) float32; ``conditioning`` M rows; ``step_noise`` (N, M, C, H, W) or None."""

    start: Tensor
    conditioning: Conditioning
    step_noise: Tensor | None

    def select(self, index: Tensor | slice) -> Samples:
        return Samples(
            self.start[index],
            self.conditioning.select(index),
            None if self.step_noise is None else self.step_noise[:, index],
        )

    def __len__(self) -> int:
        return len(self.start)


def draw(shape: Sequence[int], table: SamplerTable, bank: Conditioning, seeds: Sequence[int]) -> Samples:
    """The samples of the given seeds; sample i gets row i of the bank, in turn.

    Args:
        shape: (C, H, W) of a latent.
    """
    start, noises = [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        start.append(torch.randn(tuple(shape), generator=generator) * table.init_noise_sigma)
        if table.stochastic:
            noises.append(torch.randn((table.calls, *shape), generator=generator))
    return Samples(torch.stack(start), in_turn(bank, len(seeds)), torch.stack(noises, dim=1) if noises else None)


def held_out_seeds(count: int, first: int = 0) -> list[int]:
    return [HELD_OUT + first + i for i in range(count)]


def calibration_seeds(seed: int, count: int) -> list[int]:
    return [seed * FIT_STRIDE + i for i in range(count)]
