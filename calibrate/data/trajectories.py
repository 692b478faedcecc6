"""FP32 trajectories of the calibration samples with all that is needed to run them again, quantized."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dq_toolchain.calibrate.data.fp32_rollouts import Rollouts
from dq_toolchain.calibrate.data.samples import Samples
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.sampler.denoiser import Denoiser
from dq_toolchain.toolchain.sampler.table import SamplerTable
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork


@dataclass(frozen=True)
class Trajectories:
    """What choosers and finishers of a method work from.

    Attributes:
        network: the FP32 network, on ``device``. table: the sampler as FP32 runs it.
        seed: of the calibration; every random choice derives from it.
        batch: samples that a network takes at once, at most; None is all of them.
    """

    network: nn.Module
    table: SamplerTable
    scheduler_config: Mapping[str, Any]
    samples: Samples
    targets: Rollouts
    guidance: float
    device: torch.device
    seed: int
    batch: int | None = None

    def first(self, count: int) -> Trajectories:
        """The same with the first ``count`` samples only."""
        index = slice(0, count)
        targets = self.targets.select(index, self.targets.latents.device)
        return replace(self, samples=self.samples.select(index), targets=targets)

    def exact(self, set_step: Callable[[int], None] | None = None) -> Denoiser:
        """The FP32 network on all samples."""
        conditioning = self.samples.conditioning.to(self.device)
        return Denoiser(self.network, self.table, conditioning, self.guidance, set_step)

    def quantized(self, artifact: Artifact, table: SamplerTable) -> Denoiser:
        """The artifact's network on all samples, with ``table`` in the place of its own."""
        network = SimulatedNetwork(artifact, "fake_quantize").to(self.device)
        conditioning = self.samples.conditioning.to(self.device)
        return Denoiser(network, table, conditioning, self.guidance, network.set_step, self.batch)

    def latents(self, k: int) -> Tensor:
        """(M, C, H, W) FP32 latents before step k, on the device."""
        return self.targets.latents[k].to(self.device)

    def each_latent(self) -> Iterator[Tensor]:
        """``latents`` before every step, first step first."""
        return (self.latents(k) for k in range(self.table.calls))

    def outputs(self, k: int) -> Tensor:
        """(M, C, H, W) FP32 network outputs of step k, on the device."""
        return self.targets.outputs[k].to(self.device)

    @property
    def noise(self) -> Tensor | None:
        """(N, M, C, H, W) step noise, on the device; None where the sampler adds none."""
        return None if self.samples.step_noise is None else self.samples.step_noise.to(self.device)
