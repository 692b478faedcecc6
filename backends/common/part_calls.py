"""A part on what its reference holds: the calls that it is judged with, and whether fp16 holds all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from dq_toolchain.backends.common.fp16_range import watched
from dq_toolchain.backends.common.norms import scale_norms
from dq_toolchain.toolchain.parts.artifact import PartsArtifact
from dq_toolchain.toolchain.parts.image_to_image import VAE_ENCODER
from dq_toolchain.toolchain.parts.part import DECODER, Part
from dq_toolchain.toolchain.parts.tokens import Tokens
from dq_toolchain.toolchain.quant.qparams import FP16_LARGEST


def reference_calls(found: PartsArtifact, part: Part, folder: Path) -> Iterator[dict[str, Tensor]]:
    """Inputs by name of every prompt, latent or picture that FP32's answers are kept of.

    Args:
        folder: ``parts`` of the artifact, which holds the tokenizers.
    """
    if part.name == DECODER:
        assert found.reference.latents is not None
        yield from ({"latents": row[None]} for row in found.reference.latents)
        return
    if part.name == VAE_ENCODER:
        yield from picture_calls(found)
        return
    encoder = next(each for each in found.pipeline.encoders if each.name == part.name)
    tokens = Tokens(found.pipeline.tokenizer(encoder.tokenizer), folder)
    for prompt in found.reference.prompts:
        ids, mask = tokens(prompt)
        yield {"ids": ids, "mask": mask} if encoder.mask else {"ids": ids}


def picture_calls(found: PartsArtifact) -> Iterator[dict[str, Tensor]]:
    """Inputs of the encoder of pictures: FP32's own pictures, as a file holds them."""
    assert found.reference.pictures is not None
    yield from ({"picture": row[None].clamp(-1, 1)} for row in found.reference.pictures)


LIMIT = FP16_LARGEST / 2
"""An octave to spare: prompts and pictures of users reach further than those that were measured."""


@torch.no_grad()
def part_beyond_fp16(
    part: Part, call: Mapping[str, Tensor], growth: Mapping[str, Tensor] | None = None
) -> dict[str, float]:
    """Largest absolute values beyond LIMIT, by layer, parameter or module: what was measured, else of one call in float32.

    Args:
        growth: by layer, how much larger its product is than its output; see ``fp16_range.watched``.
    """
    sizes = {name: float(ends.abs().max()) for name, ends in part.ranges.items()}
    sizes |= {name: float(value.abs().max()) for name, value in part.float_parameters.items() if value.numel()}
    known = {name: size for name, size in sizes.items() if not size <= LIMIT}
    if known:
        return known
    module = scale_norms(part.build())
    with watched(module, growth or {}, LIMIT) as found:
        module(*call.values())
    return found


def in_words(beyond: Mapping[str, float]) -> str:
    """The largest of ``part_beyond_fp16``."""
    name, largest = max(beyond.items(), key=lambda each: each[1])
    return f"{name} reaches {largest:.3g}, fp16 holds at most {FP16_LARGEST:.0f} and other inputs reach further"
