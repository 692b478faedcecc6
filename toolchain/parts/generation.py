"""One picture of a prompt: noise, the sampler's steps, the decoder. What computes the network and the parts is the caller's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dq_toolchain.toolchain.parts.beginning import Beginning, FromPicture, noise_of, with_picture
from dq_toolchain.toolchain.parts.part import DECODER
from dq_toolchain.toolchain.parts.picture import pixels
from dq_toolchain.toolchain.parts.pipeline import Pipeline
from dq_toolchain.toolchain.parts.prompting import RunPart
from dq_toolchain.toolchain.sampler.rollout import Network, rollout
from dq_toolchain.toolchain.sampler.table import SamplerTable


@dataclass(frozen=True)
class Picture:
    """``pixels`` (3, H, W) uint8; ``latents`` (1, C, h, w) float32, as the sampler leaves them."""

    pixels: Tensor
    latents: Tensor


@torch.no_grad()
def picture_of(
    seed: int,
    shape: Sequence[int],
    table: SamplerTable,
    network: Network,
    pipeline: Pipeline,
    run: RunPart,
    on_step: Callable[[int, int], None] = lambda _done, _total: None,
    given: FromPicture | None = None,
) -> Picture:
    """Sample and decode.

    Args:
        shape: (1, C, h, w) of the latents. table: of all calls. network: as ``rollout`` takes it, by the calls of ``table``.
        run: executes the decoder, and the encoder where there is a picture.
        on_step: called after each network call, with the calls done and in all.
        given: what the run begins with in the place of noise.
    """
    if given is None:
        latents, noise = noise_of(seed, shape, table)
        begin = Beginning(table, 0, latents, noise)
    else:
        begin = with_picture(seed, shape, table, given, run)
    run_of = rollout(
        begin.table,
        lambda x, k: network(x, begin.call + k),
        begin.latents,
        noise=begin.noise,
        on_step=lambda k, _x, _f: on_step(k + 1, begin.table.calls),
    )
    latents = run_of[-1]
    made = latents if pipeline.decoder is None else run(DECODER, {"latents": latents})["picture"]
    return Picture(pixels(made[0]), latents)
