"""What every stage of a calibration works on, made once; stages hold it instead of copies of its parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dq_toolchain.calibrate.data.samples import Samples, draw
from dq_toolchain.calibrate.network.activation_memory import ActivationMemory
from dq_toolchain.calibrate.network.insert import Prepared
from dq_toolchain.calibrate.network.precision import computing_in
from dq_toolchain.calibrate.network.streaming import Streaming
from dq_toolchain.calibrate.work.workers import ALONE, Workers
from dq_toolchain.toolchain.disk.spill import Spill
from dq_toolchain.toolchain.models.architectures import latent_shape
from dq_toolchain.toolchain.models.loading import Model
from dq_toolchain.toolchain.recipe.sections import Precision
from dq_toolchain.toolchain.sampler.conditioning import Conditioning
from dq_toolchain.toolchain.sampler.denoiser import Denoiser
from dq_toolchain.toolchain.sampler.samplings import Sampling
from dq_toolchain.toolchain.sampler.step_groups import StepGroups
from dq_toolchain.toolchain.sampler.table import SamplerTable
from dq_toolchain.toolchain.sampler.transfer import to_device

ROLLOUT_BATCH = 32
ACTIVATION_LIMIT = 2 * 2**30
"""Bytes that activations may take in a pass without gradient."""
ROLLOUT_BATCH_OF_A_GPU = 256


@dataclass(frozen=True, kw_only=True)
class Context:
    """Attributes:
    model: its network is the one in ``prepared``.
    prepared: the FP32 network on ``device``, and its sites.
    table: the sampler as FP32 runs it. guidance: w of its guidance, 1 is none.
    bank: conditioning that samples take in turn.
    samples: those to calibrate on, on the CPU.
    seed: of the calibration; every random choice derives from it.
    is_large: whether the network takes long and much memory, whatever the device.
    activation_memory: for one sample, of a large network or on a GPU; None for others.
    workers: the processes that share this calibration.
    precision: of FP32 rollouts, ranges and validation.
    room: bytes that activations may take on a GPU in a pass without gradient; None: ACTIVATION_LIMIT.
    gradient_batch: samples whose activations a pass with gradient may keep, of one step; None: all of an iteration.
    parallel_steps: steps that FP32 rollouts of the calibration samples compute at once.
    streaming: of the network's blocks, whose weights are then on the host; None where all of it is on ``device``.
    spill: where weights and integers go that the system can then drop from memory (``offload`` on the host); None: memory.
    steps: what the scheduler was asked for. samplings: other counts and guidance scales that get held-out rollouts.
    """

    model: Model
    prepared: Prepared
    table: SamplerTable
    guidance: float
    step_groups: StepGroups
    bank: Conditioning
    samples: Samples
    device: torch.device
    seed: int
    is_large: bool = False
    activation_memory: ActivationMemory | None = None
    workers: Workers = ALONE
    precision: Precision = "exact"
    room: int | None = None
    gradient_batch: int | None = None
    streaming: Streaming | None = None
    spill: Spill | None = None
    parallel_steps: int = 1
    steps: int | None = None
    samplings: tuple[Sampling, ...] = ()

    def close(self) -> None:
        """Weights are streamed no more: those of blocks are on the host, and what was pinned is free as soon as nothing uses it."""
        if self.streaming is not None:
            self.streaming.close()

    @property
    def network(self) -> nn.Module:
        """The FP32 network, splits and smoothing applied."""
        return self.prepared.network

    @property
    def rollout_batch(self) -> int:
        """How many samples run through the network at once, without gradient.

        On a GPU a power of two: what other programs take of its memory decides little then, and a run that is continued
        finds its checkpoints.
        """
        if self.room is None or self.activation_memory is None:
            return self.host_batch
        fitting = max(1, min(ROLLOUT_BATCH_OF_A_GPU, self.room // self.activation_memory.forward))
        return int(2 ** (fitting.bit_length() - 1))

    @property
    def host_batch(self) -> int:
        """The same on the CPU."""
        return (
            ROLLOUT_BATCH
            if self.activation_memory is None
            else max(1, min(ROLLOUT_BATCH, ACTIVATION_LIMIT // self.activation_memory.forward))
        )

    @property
    def simulation_device(self) -> torch.device:
        """Where the integer simulation of an artifact runs. It is not streamed: if the FP32 network is, its place is the CPU."""
        return torch.device("cpu") if self.streaming is not None else self.device

    @property
    def simulation_batch(self) -> int:
        """How many samples of it run at once."""
        return self.host_batch if self.streaming is not None else self.rollout_batch

    @property
    def group_of_step(self) -> tuple[int, ...]:
        return tuple(g for g, steps in enumerate(self.step_groups) for _ in steps)

    def shortened(self) -> AbstractContextManager[None]:
        """Around FP32 rollouts, ranges and validation: these may be computed in less than float32."""
        return computing_in(self.precision, self.device)

    def draw(self, seeds: Sequence[int], table: SamplerTable | None = None) -> Samples:
        """The held-out samples of the given seeds, for the calibrated table or another one."""
        return draw(latent_shape(self.model.config), table or self.table, self.bank, seeds, len(self.samples))

    def denoiser(
        self,
        network: nn.Module,
        samples: Samples,
        set_step: Callable[[int], None] | None = None,
        batch: int | None = None,
    ) -> Denoiser:
        """A network on some samples, with the table and guidance of FP32; arguments as ``Denoiser`` has them."""
        conditioning = samples.conditioning.to(self.device)
        return Denoiser(network, self.table, conditioning, self.guidance, set_step, batch)

    def noise(self, samples: Samples) -> Tensor | None:
        """(N, B, C, H, W) step noise of some samples on the device; None where the sampler adds none."""
        return None if samples.step_noise is None else to_device(samples.step_noise, self.device)
