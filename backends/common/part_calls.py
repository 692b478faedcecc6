"""A part on what its reference holds: the calls that it is judged with, and whether fp16 holds all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from dq_toolchain.backends.common.fp16_range import watched
from dq_toolchain.backends.common.norms import scale_norms
from dq_toolchain.toolchain.parts.artifact import PartsArtifact
from dq_toolchain.toolchain.parts.part import DECODER, Part
from dq_toolchain.toolchain.parts.tokens import Tokens


def reference_calls(found: PartsArtifact, part: Part, folder: Path) -> Iterator[dict[str, Tensor]]:
    """Inputs by name of every prompt or latent that FP32's answers are kept of.

    Args:
        folder: ``parts`` of the artifact, which holds the tokenizers.
    """
    if part.name == DECODER:
        assert found.reference.latents is not None
        yield from ({"latents": row[None]} for row in found.reference.latents)
        return
    encoder = next(each for each in found.pipeline.encoders if each.name == part.name)
    tokens = Tokens(found.pipeline.tokenizer(encoder.tokenizer), folder)
    for prompt in found.reference.prompts:
        ids, mask = tokens(prompt)
        yield {"ids": ids, "mask": mask} if encoder.mask else {"ids": ids}


@torch.no_grad()
def part_beyond_fp16(
    part: Part, call: Mapping[str, Tensor], growth: Mapping[str, Tensor] | None = None
) -> dict[str, float]:
    """Largest absolute values beyond fp16 by layer or module, in order of execution, of one call in float32.

    Args:
        growth: by layer, how much larger its product is than its output; see ``fp16_range.watched``.
    """
    module = scale_norms(part.build())
    with watched(module, growth or {}) as found:
        module(*call.values())
    return found
