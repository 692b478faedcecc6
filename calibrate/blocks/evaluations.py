"""Single network evaluations taken from FP32 trajectories: what single-step methods measure and reconstruct on.

A row is one evaluation of the network at one step of one sample; with guidance a (step, sample) pair gives two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from dq_toolchain.calibrate.data.rollouts import Rollouts
from dq_toolchain.calibrate.data.samples import Samples
from dq_toolchain.toolchain.sampler.conditioning import Conditioning
from dq_toolchain.toolchain.sampler.table import SamplerTable
from dq_toolchain.toolchain.sampler.transfer import to_device


class Given(NamedTuple):
    """What a network is called with in R rows, on one device."""

    sample: Tensor
    timestep: Tensor
    keywords: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Evaluations:
    """R evaluations, on the CPU. Many rows share a sample's conditioning, which can be megabytes: it is not copied for each.

    Attributes:
        sample: (R, C, H, W) float32 as the network is given it. timestep: (R,) float32.
        step: (R,) int64, the sampler's step that each belongs to.
        conditioning: of the samples that they were taken from.
        place: (R,) int64, which of these is a row's: p the condition of sample p, ~p what that is without its condition.
    """

    sample: Tensor
    timestep: Tensor
    step: Tensor
    conditioning: Conditioning
    place: Tensor

    def __len__(self) -> int:
        return len(self.step)

    @property
    def keywords(self) -> dict[str, Tensor]:
        """R rows each, in memory of their own."""
        return {name: self._rows_of(name, value) for name, value in self.conditioning.cond.items()}

    def _rows_of(self, name: str, cond: Tensor) -> Tensor:
        rows = cond[self.place.clamp_min(0)]
        if name not in self.conditioning.uncond:
            return rows
        conditional = (self.place >= 0).view(-1, *[1] * (rows.dim() - 1))
        return torch.where(conditional, rows, self.conditioning.uncond[name][(~self.place).clamp_min(0)])

    def select(self, index: Tensor | slice) -> Evaluations:
        names = ("sample", "timestep", "step", "place")
        return replace(self, **{name: getattr(self, name)[index] for name in names})

    def to(self, device: torch.device) -> Given:
        """The rows for a call there."""
        keywords = {name: to_device(value, device) for name, value in self.keywords.items()}
        return Given(to_device(self.sample, device), to_device(self.timestep, device), keywords)

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
    time, conditioning = torch.tensor(table.timesteps)[step], samples.conditioning
    if guidance == 1.0:
        bare = Conditioning(conditioning.cond)
        return Evaluations(sample=latents, timestep=time, step=step, conditioning=bare, place=sample)
    return Evaluations(
        sample=torch.cat([latents, latents]),
        timestep=time.repeat(2),
        step=step.repeat(2),
        conditioning=conditioning,
        place=torch.cat([sample, ~sample]),
    )
