"""Rollouts of samples with a network. Those of FP32 are what calibration aims at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dq_toolchain.calibrate.data.picard import check_rows_apart, picard_rollout
from dq_toolchain.calibrate.data.samples import Samples
from dq_toolchain.calibrate.work.host_reads import read_on_host
from dq_toolchain.toolchain.console.progress import Advance
from dq_toolchain.toolchain.sampler.denoiser import Denoiser
from dq_toolchain.toolchain.sampler.rollout import State, rollout
from dq_toolchain.toolchain.sampler.table import SamplerTable
from dq_toolchain.toolchain.sampler.transfer import to_device


@dataclass(frozen=True)
class Rollouts:
    """``latents`` (N+1, M, C, H, W) and ``outputs`` (N, M, C, H, W), float32, of one network."""

    latents: Tensor
    outputs: Tensor

    @classmethod
    def empty(cls, table: SamplerTable, samples: Samples) -> Rollouts:
        """To be filled, on the CPU: whole from the start, so that batches are not held twice."""
        count, *shape = samples.start.shape
        latents, outputs = (
            torch.empty((steps, count, *shape), dtype=samples.start.dtype) for steps in (table.calls + 1, table.calls)
        )
        return cls(latents, outputs)

    def select(self, index: slice, device: torch.device) -> Rollouts:
        """Some of the samples, on a device."""
        return Rollouts(to_device(self.latents[:, index], device), to_device(self.outputs[:, index], device))

    def state(self, table: SamplerTable, step: int, index: Tensor) -> State:
        """Where FP32 stands before ``step``, with the history that the sampler looks back on."""
        index = to_device(index, self.latents.device)
        back_latents, back_outputs = len(table.a[0]), len(table.b[0]) - 1
        return State(
            tuple(self.latents[k, index] for k in range(step, max(-1, step - back_latents), -1)),
            tuple(self.outputs[k, index] for k in range(step - 1, max(-1, step - 1 - back_outputs), -1)),
        )


def parallel_rollouts(
    network: nn.Module,
    table: SamplerTable,
    samples: Samples,
    *,
    guidance: float,
    batch: int,
    window: int,
    device: torch.device,
    advance: Advance = lambda n=1: None,
) -> Rollouts:
    """``rollouts_of`` with ``window`` steps at once (``picard``); results on the CPU.

    Args:
        batch: samples times steps that go through the network at once, at most.
    Raises:
        CalibrationError: the network computes rows of different timesteps otherwise than each alone.
    """
    each, window, made = samples_at_once(batch, window), min(window, batch), Rollouts.empty(table, samples)
    if window > 1:
        first = samples.select(slice(0, 1))
        one = Denoiser(network, table, first.conditioning.to(device), guidance)
        check_rows_apart(one, to_device(first.start, device))
    for begin in range(0, len(samples), each):
        rows = slice(begin, begin + each)
        part = samples.select(rows)
        denoiser = Denoiser(network, table, part.conditioning.to(device), guidance)
        noise = None if part.step_noise is None else to_device(part.step_noise, device)
        start = to_device(part.start, device)
        run = picard_rollout(denoiser, start, window=window, noise=noise, advance=advance)
        made.latents[:, rows] = read_on_host(run[0], "rollouts of a batch")
        made.outputs[:, rows] = read_on_host(run[1], "rollouts of a batch")
    return made


def samples_at_once(batch: int, window: int) -> int:
    """Samples of a batch of rollouts, where ``batch`` rows go through the network at once and each sample takes ``window``."""
    return max(1, batch // window)


@torch.no_grad()
def rollouts_of(
    network: nn.Module,
    table: SamplerTable,
    samples: Samples,
    *,
    guidance: float,
    batch: int,
    device: torch.device,
    set_step: Callable[[int], None] | None = None,
    advance: Advance = lambda n=1: None,
) -> Rollouts:
    """Run the sampler for every sample, ``batch`` at a time; results on the CPU."""
    made = Rollouts.empty(table, samples)
    for begin in range(0, len(samples), batch):
        rows = slice(begin, begin + batch)
        part = samples.select(rows)
        denoiser = Denoiser(network, table, part.conditioning.to(device), guidance, set_step)
        arriving: list[Tensor] = []
        noise = None if part.step_noise is None else to_device(part.step_noise, device)

        def on_step(k: int, _x: Tensor, f: Tensor, rows: slice = rows, arriving: list[Tensor] = arriving) -> None:
            if f.device.type == "cpu":
                made.outputs[k, rows] = f
            else:
                arriving.append(f.to("cpu", non_blocking=True))
            advance(1)

        run = rollout(table, denoiser, to_device(part.start, device), noise=noise, on_step=on_step)
        made.latents[:, rows] = read_on_host(run, "rollouts of a batch")  # after it, the outputs have arrived as well
        for k, f in enumerate(arriving):
            made.outputs[k, rows] = f
    return made
