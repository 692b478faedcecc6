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

DISTINCT = 2**32
"""Seeds below it: PyTorch's generator on the CPU (mt19937) reads 32 bits of a seed, so others repeat the noise of these."""
FIT_STRIDE = 2**20
"""Held-out sample i uses seed i, as people who draw a picture choose seeds; calibration sample i of calibration seed s uses
(s + 1) * FIT_STRIDE + i."""


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


def draw(
    shape: Sequence[int], table: SamplerTable, bank: Conditioning, seeds: Sequence[int], fitted: int = 0
) -> Samples:
    """The samples of the given seeds; sample i gets row i of the bank, in turn.

    Args:
        shape: (C, H, W) of a latent.
        fitted: of held-out samples, the number of calibration samples: theirs are the first rows, and where the bank has more,
            held-out samples have the rows behind them.
    Raises:
        ValueError: a seed of 2**32 or more, whose noise is that of another seed.
    """
    if beyond := [seed for seed in seeds if not 0 <= seed < DISTINCT]:
        raise ValueError(f"seeds of samples are below 2**32, got {beyond[0]}: noise from there on repeats")
    start, noises = [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        start.append(torch.randn(tuple(shape), generator=generator) * table.init_noise_sigma)
        if table.stochastic:
            noises.append(torch.randn((table.calls, *shape), generator=generator))
    return Samples(
        torch.stack(start), in_turn(bank, len(seeds), fitted), torch.stack(noises, dim=1) if noises else None
    )


def held_out_seeds(count: int, first: int = 0) -> list[int]:
    return [first + i for i in range(count)]


def calibration_seeds(seed: int, count: int) -> list[int]:
    return [(seed + 1) * FIT_STRIDE + i for i in range(count)]


def seeds_of(seed: int, held_out: int) -> dict[str, int]:
    """The record of an artifact: the seed of the calibration and of its first sample, and the number of held-out samples."""
    return {"calibration": seed, "first_sample": calibration_seeds(seed, 1)[0], "held_out": held_out}
