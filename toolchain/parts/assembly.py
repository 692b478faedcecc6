"""From what text encoders give to what the network takes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from dq_toolchain.toolchain.parts.pipeline import Pipeline


def assemble(pipeline: Pipeline, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The conditioning of one prompt.

    The outputs in a row are concatenated along their last axis; rows are padded with zeros to the widest and concatenated along
    the tokens (as SD3's pipeline has it; with one row nothing is padded).

    Args:
        outputs: "PART.OUTPUT" and "TOKENIZER.mask" -> (1, ...) float32.
    """
    made = {}
    for name, rows in pipeline.conditioning.items():
        joined = [torch.cat([outputs[source] for source in row], dim=-1) for row in rows]
        widest = max(row.shape[-1] for row in joined)
        padded = [F.pad(row, (0, widest - row.shape[-1])) for row in joined]
        made[name] = padded[0] if len(padded) == 1 else torch.cat(padded, dim=1)
    return made


def without_prompt(pipeline: Pipeline, tensors: Mapping[str, Tensor], negative: str) -> dict[str, Tensor]:
    """The unconditional side: what the negative prompt gives, or zeros where the pipeline takes those for an empty one."""
    zeros = pipeline.zeros_without_negative and not negative
    return {name: torch.zeros_like(value) if zeros else value for name, value in tensors.items()}
