"""One picture of a prompt: noise, the sampler's steps, the decoder. What computes the network and the parts is the caller's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.parts.part import DECODER
from dq_toolchain.toolchain.parts.picture import pixels
from dq_toolchain.toolchain.parts.pipeline import Pipeline
from dq_toolchain.toolchain.parts.prompting import RunPart
from dq_toolchain.toolchain.sampler.rollout import Network, rollout
from dq_toolchain.toolchain.sampler.table import SamplerTable

MOST_SEEDS = 2**63


@dataclass(frozen=True)
class Picture:
    """``pixels`` (3, H, W) uint8; ``latents`` (1, C, h, w) float32, as the sampler leaves them."""

    pixels: Tensor
    latents: Tensor


def noise_of(seed: int, shape: Sequence[int], table: SamplerTable) -> tuple[Tensor, Tensor | None]:
    """The start latent and the noise of each step, as diffusers' pipelines draw them with a generator on the CPU.

    Args:
        shape: (1, C, h, w).
    Returns:
        (1, C, h, w); (N, 1, C, h, w), None where the sampler adds none.
    Raises:
        RecipeError: a seed that torch has not.
    """
    if not 0 <= seed < MOST_SEEDS:
        raise RecipeError(f"--seed must be 0-{MOST_SEEDS - 1}, got {seed}; change it")
    generator = torch.Generator("cpu").manual_seed(seed)
    start = torch.randn(tuple(shape), generator=generator) * table.init_noise_sigma
    if not table.stochastic:
        return start, None
    return start, torch.stack([torch.randn(tuple(shape), generator=generator) for _ in range(table.calls)])


@torch.no_grad()
def picture_of(
    seed: int,
    shape: Sequence[int],
    table: SamplerTable,
    network: Network,
    pipeline: Pipeline,
    run: RunPart,
    on_step: Callable[[int], None] = lambda _k: None,
) -> Picture:
    """Sample and decode.

    Args:
        shape: (1, C, h, w) of the latents. network: as ``rollout`` takes it. run: executes the decoder.
        on_step: called after each network call.
    """
    start, noise = noise_of(seed, shape, table)
    latents = rollout(table, network, start, noise=noise, on_step=lambda k, _x, _f: on_step(k))[-1]
    made = latents if pipeline.decoder is None else run(DECODER, {"latents": latents})["picture"]
    return Picture(pixels(made[0]), latents)
