"""Policies in the loop of the task: FP32 in diffusers' own loop, the integer simulation, and a bundle's program.

All start a chunk from the same noise, so that they differ by their numbers only.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from task import CHUNKS, HORIZON, Policy, State, observed, to_commands
from torch import Tensor, nn

from dq_toolchain import backends
from dq_toolchain.backends.common.sampling import DeviceNetwork
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.bundle import Bundle
from dq_toolchain.toolchain.sampler.conditioning import Conditioning
from dq_toolchain.toolchain.sampler.denoiser import Denoiser
from dq_toolchain.toolchain.sampler.rollout import rollout
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork

Sampler = Callable[[Tensor, Tensor], Tensor]
"""(start noise (M, 2, HORIZON), observations (M, 10)) -> numbers of the action chunks (M, 2, HORIZON)."""


def acting(sampler: Sampler, tables: int, seed: int = 0) -> Policy:
    """A sampler as a policy of the task: chunk c of table n starts from noise that depends on c, n and the seed only."""
    noise = torch.randn(CHUNKS, tables, 2, HORIZON, generator=torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def policy(state: State, chunk: int, numbers: Tensor) -> Tensor:
        return to_commands(sampler(noise[chunk, numbers], observed(state)), state.agent)

    return policy


def of_diffusers(network: nn.Module, scheduler: Any, steps: int) -> Sampler:
    """The network in FP32 with the scheduler itself: nothing of dq-toolchain."""

    def sampler(start: Tensor, seen: Tensor) -> Tensor:
        scheduler.set_timesteps(steps)
        x = start * scheduler.init_noise_sigma if hasattr(scheduler, "init_noise_sigma") else start
        for timestep in scheduler.timesteps:
            told = torch.full((len(x),), float(timestep))
            x = scheduler.step(network(x, told, observation=seen), timestep, x, return_dict=False)[0]
        return x

    return sampler


def of_simulation(artifact: Artifact) -> Sampler:
    """The integer simulation of an artifact."""
    network = SimulatedNetwork(artifact)

    def sampler(start: Tensor, seen: Tensor) -> Tensor:
        conditioning = Conditioning({"observation": seen})
        denoiser = Denoiser(network, artifact.table, conditioning, set_step=network.set_step)
        return rollout(artifact.table, denoiser, start * artifact.table.init_noise_sigma)[-1]

    return sampler


def of_bundle(folder: Path) -> Sampler:
    """The program of a bundle, one thread, one table after the other."""
    bundle = Bundle.load(folder)
    execute, _ = backends.load(bundle.target).open(bundle, folder, 1)

    def one(start: Tensor, seen: Tensor) -> Tensor:
        network = DeviceNetwork(execute, bundle.table, bundle.guidance, Conditioning({"observation": seen}))
        return rollout(bundle.table, network, start * bundle.table.init_noise_sigma)[-1]

    return lambda start, seen: torch.cat([one(start[n : n + 1], seen[n : n + 1]) for n in range(len(start))])
