"""FP32 trajectories of the calibration samples with all that is needed to run them again, quantized."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.data.rollouts import Rollouts
from dq_toolchain.calibrate.data.samples import Samples
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.sampler.denoiser import Denoiser
from dq_toolchain.toolchain.sampler.table import SamplerTable
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork


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

    def quantized(self, artifact: Artifact, table: SamplerTable) -> Denoiser:
        """The artifact's network on all samples, with ``table`` in the place of its own."""
        network = SimulatedNetwork(artifact, "fake_quantize").to(self.context.device)
        batch = self.context.rollout_batch if self.context.is_large else None
        return replace(self.context.denoiser(network, self.samples, network.set_step, batch), table=table)

    def start(self) -> Tensor:
        """(M, C, H, W) latents before the first step, on the device."""
        return self.samples.start.to(self.context.device)

    def latents(self, k: int) -> Tensor:
        """(M, C, H, W) FP32 latents before step k, on the device."""
        return self.targets.latents[k].to(self.context.device)

    def each_latent(self) -> Iterator[Tensor]:
        """``latents`` before every step, first step first."""
        return (self.latents(k) for k in range(self.calls))

    def outputs(self, k: int) -> Tensor:
        """(M, C, H, W) FP32 network outputs of step k, on the device."""
        return self.targets.outputs[k].to(self.context.device)

    def noise(self) -> Tensor | None:
        """(N, M, C, H, W) step noise, on the device; None where the sampler adds none."""
        return self.context.noise(self.samples)
