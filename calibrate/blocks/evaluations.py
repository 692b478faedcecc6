"""Single network evaluations taken from FP32 trajectories: what single-step methods measure and reconstruct on.

A row is one evaluation of the network at one step of one sample; with guidance a (step, sample) pair gives two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dq_toolchain.calibrate.data.rollouts import Rollouts
from dq_toolchain.calibrate.data.samples import Samples
from dq_toolchain.toolchain.sampler.table import SamplerTable
from dq_toolchain.toolchain.sampler.transfer import to_device


@dataclass(frozen=True)
class Evaluations:
    """R evaluations: ``sample`` (R, C, H, W) float32 as the network is given it, ``timestep`` (R,) float32,
    ``keywords`` R rows each, ``step`` (R,) int64, the sampler's step that each belongs to."""

    sample: Tensor
    timestep: Tensor
    keywords: Mapping[str, Tensor]
    step: Tensor

    def __len__(self) -> int:
        return len(self.step)

    def select(self, index: Tensor | slice) -> Evaluations:
        keywords = {name: value[index] for name, value in self.keywords.items()}
        return Evaluations(self.sample[index], self.timestep[index], keywords, self.step[index])

    def to(self, device: torch.device) -> Evaluations:
        keywords = {name: to_device(value, device) for name, value in self.keywords.items()}
        sample, timestep, step = (to_device(x, device) for x in (self.sample, self.timestep, self.step))
        return Evaluations(sample, timestep, keywords, step)

    def batches(self, size: int) -> Iterator[Evaluations]:
        for begin in range(0, len(self), size):
            yield self.select(slice(begin, begin + size))


def evaluations_of(
    table: SamplerTable, targets: Rollouts, samples: Samples, guidance: float, step: Tensor, sample: Tensor
) -> Evaluations:
    """The evaluations of P pairs: FP32 latents of ``sample`` before ``step``, conditional ones first.

    Args:
        step, sample: (P,) int64.
    Returns:
        P rows without guidance, 2P with it.
    """
    latents = targets.latents[step, sample]
    latents = latents * torch.tensor(table.input_scale)[step].view(-1, *[1] * (latents.dim() - 1))
    time = torch.tensor(table.timesteps)[step]
    part = samples.conditioning.select(sample)
    if guidance == 1.0:
        return Evaluations(latents, time, dict(part.cond), step)
    keywords = {name: torch.cat([value, part.uncond[name]]) for name, value in part.cond.items()}
    return Evaluations(torch.cat([latents, latents]), time.repeat(2), keywords, step.repeat(2))
