"""Where a run begins: with noise, or with a picture and the noise of a step (SDEdit, Meng et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dq_toolchain.toolchain.disk.pictures import read_png
from dq_toolchain.toolchain.errors import BackendError, RecipeError
from dq_toolchain.toolchain.parts.image_to_image import VAE_ENCODER, ImageToImage
from dq_toolchain.toolchain.parts.pipeline import Pipeline
from dq_toolchain.toolchain.parts.prompting import RunPart, Wish
from dq_toolchain.toolchain.sampler.starts import Start, chosen_start
from dq_toolchain.toolchain.sampler.table import SamplerTable

STRENGTH = 0.8
"""Where none is given, as in diffusers."""
MOST_SEEDS = 2**63


@dataclass(frozen=True)
class Beginning:
    """Attributes:
    table: of the calls that run, ``call`` of the whole table first.
    latents: (1, C, h, w) that call gets. noise: (calls, 1, C, h, w), None where the sampler adds none.
    """

    table: SamplerTable
    call: int
    latents: Tensor
    noise: Tensor | None


@dataclass(frozen=True)
class FromPicture:
    """What a wish with a picture begins with, checked before anything large is loaded. ``picture``: (1, 3, H, W) in [-1, 1]."""

    picture: Tensor
    start: Start
    about: ImageToImage


def from_picture(wish: Wish, pipeline: Pipeline, steps: int | None) -> FromPicture | None:
    """None where the wish has no picture.

    Args:
        steps: that run; None is the only count there is.
    Raises:
        RecipeError: the strength leaves no step, or the picture does not fit.
        BackendError: ``pipeline`` has no starts of these steps.
    """
    about = pipeline.image
    if wish.image is None or about is None:
        return None
    if steps is not None and steps not in about.starts:
        held = ", ".join(map(str, about.starts))
        raise BackendError(
            f"--image: there are no starts with a picture for {steps} steps, but for {held}; choose of these"
        )
    start = chosen_start(about.of(steps), STRENGTH if wish.strength is None else wish.strength, about.start_rounds)
    picture = read_png(wish.image, about.height, about.width)
    return FromPicture(picture[None].to(torch.float32) / 255 * 2 - 1, start, about)


def noise_of(seed: int, shape: Sequence[int], table: SamplerTable) -> tuple[Tensor, Tensor | None]:
    """The start latent and the noise of each step, as diffusers' pipelines draw them with a generator on the CPU.

    Args:
        shape: (1, C, h, w).
    Returns:
        (1, C, h, w); (N, 1, C, h, w), None where the sampler adds none.
    Raises:
        RecipeError: a seed that torch has not.
    """
    generator = _generator(seed)
    start = _draw(shape, generator) * table.init_noise_sigma
    return start, _each_step(shape, table, generator)


def with_picture(seed: int, shape: Sequence[int], table: SamplerTable, given: FromPicture, run: RunPart) -> Beginning:
    """The noised latent of a picture and the noise of each remaining step, as diffusers' pipelines draw them.

    Args:
        shape, table: of the latents; of all calls. run: executes the encoder.
    Raises:
        RecipeError: a seed that torch has not.
    """
    generator = _generator(seed)
    found = run(VAE_ENCODER, {"picture": given.picture})
    latents = found["mean"]
    if given.about.deviates:
        latents = latents + found["deviation"] * _draw(shape, generator)
    latents = given.start.signal * latents + given.start.noise * _draw(shape, generator)
    rest = given.start.remaining(table)
    return Beginning(rest, given.start.call, latents, _each_step(shape, rest, generator))


def _generator(seed: int) -> torch.Generator:
    if not 0 <= seed < MOST_SEEDS:
        raise RecipeError(f"--seed must be 0-{MOST_SEEDS - 1}, got {seed}; change it")
    return torch.Generator("cpu").manual_seed(seed)


def _draw(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    return torch.randn(tuple(shape), generator=generator)


def _each_step(shape: Sequence[int], table: SamplerTable, generator: torch.Generator) -> Tensor | None:
    return torch.stack([_draw(shape, generator) for _ in range(table.calls)]) if table.stochastic else None
