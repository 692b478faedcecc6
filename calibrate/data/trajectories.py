"""FP32 trajectories of the calibration samples with all that is needed to run them again, quantized."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.data.rollouts import Rollouts
from dq_toolchain.calibrate.data.samples import Samples
from dq_toolchain.calibrate.work.host_reads import read_on_host
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.sampler.denoiser import Denoiser
from dq_toolchain.toolchain.sampler.table import SamplerTable
from dq_toolchain.toolchain.sampler.transfer import to_device
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork


@dataclass(frozen=True)
class OnHost:
    """A denoiser whose latents and outputs are on the CPU, where statistics of a step are taken: the host reads once per call."""

    denoiser: Denoiser
    device: torch.device

    @property
    def table(self) -> SamplerTable:
        return self.denoiser.table

    def with_table(self, table: SamplerTable) -> OnHost:
        """The same with another table."""
        return replace(self, denoiser=replace(self.denoiser, table=table))

    def __call__(self, x: Tensor, k: int) -> Tensor:
        return read_on_host(self.denoiser(to_device(x, self.device), k), "output of a step")


@dataclass(frozen=True)
class Trajectories:
    """What choosers and finishers of a method work from: ``targets``, the FP32 rollouts of the context's samples."""

    context: Context
    targets: Rollouts

    @property
    def samples(self) -> Samples:
        """M samples, on the CPU."""
        return self.context.samples

    @property
    def calls(self) -> int:
        """N, the sampler's network calls."""
        return self.context.table.calls

    def first(self, count: int) -> Trajectories:
        """The same with the first ``count`` samples only."""
        index = slice(0, count)
        targets = self.targets.select(index, self.targets.latents.device)
        return Trajectories(replace(self.context, samples=self.samples.select(index)), targets)

    def exact(self, set_step: Callable[[int], None] | None = None) -> Denoiser:
        """The FP32 network on all samples."""
        return self.context.denoiser(self.context.network, self.samples, set_step)

    def quantized(self, artifact: Artifact, table: SamplerTable) -> OnHost:
        """The artifact's network on all samples, with ``table`` in the place of its own; latents and outputs on the CPU."""
        context, device = self.context, self.context.simulation_device
        network = SimulatedNetwork(artifact, "fake_quantize").to(device)
        batch = None if context.activation_memory is None else context.simulation_batch
        conditioning = self.samples.conditioning.to(device)
        denoiser = Denoiser(network, table, conditioning, context.guidance, network.set_step, batch)
        return OnHost(denoiser, device)

    def start(self) -> Tensor:
        """(M, C, H, W) latents before the first step, on the CPU."""
        return self.samples.start

    def latents(self, k: int) -> Tensor:
        """(M, C, H, W) FP32 latents before step k, on the CPU."""
        return self.targets.latents[k]

    def each_latent(self) -> Iterator[Tensor]:
        """``latents`` before every step, first step first, on the device."""
        return (to_device(self.latents(k), self.context.device) for k in range(self.calls))

    def outputs(self, k: int) -> Tensor:
        """(M, C, H, W) FP32 network outputs of step k, on the CPU."""
        return self.targets.outputs[k]

    def noise(self) -> Tensor | None:
        """(N, M, C, H, W) step noise, on the CPU; None where the sampler adds none."""
        return self.samples.step_noise
