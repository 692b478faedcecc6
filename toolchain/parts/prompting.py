"""What a prompt may hold, and what becomes of it: the conditioning of one picture."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.parts.assembly import assemble, without_prompt
from dq_toolchain.toolchain.parts.pipeline import MASK, Pipeline
from dq_toolchain.toolchain.parts.tokens import Tokens
from dq_toolchain.toolchain.sampler.conditioning import Conditioning

RunPart = Callable[[str, Mapping[str, Tensor]], Mapping[str, Tensor]]
"""(name of a part, its inputs) -> its outputs."""
LABELS = "class_labels"
LONGEST = 10_000
WEIGHTED = re.compile(r"\([^()]*:\s*-?\d*\.?\d+\s*\)|\(\(|\[\[|<\|[^|]*\|>|<[\w-]+(:[^<>\s]*)?>")
"""(word:1.3), ((word)), [[word]], <lora:name:1> and <token>: notation of other programs, which a tokenizer reads as letters; and
<|endoftext|>, which it reads as the end."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a picture is asked to be.

    Attributes:
        label: of a network that takes a class in the place of a prompt.
        image: PNG file that the run begins with in the place of noise. strength: of (0, 1], how much of the sampler runs; None is
            the usual one.
    """

    prompt: str | None = None
    negative: str = ""
    label: int | None = None
    seed: int = 0
    image: Path | None = None
    strength: float | None = None


def check_wish(wish: Wish, pipeline: Pipeline, *, takes_labels: bool, classes: int | None = None) -> None:
    """Raise RecipeError for a wish that the pipeline cannot fulfil.

    Args:
        classes: of a network that takes labels, how many it has; None where that is not known.
    """
    if pipeline.encoders and wish.prompt is None:
        raise RecipeError(
            '--prompt is missing: this model draws what a text says; give one, as in --prompt "a red house"'
        )
    if not pipeline.encoders and (wish.prompt is not None or wish.negative):
        raise RecipeError("--prompt: this model takes no text; " + ("give --label" if takes_labels else "leave it out"))
    if takes_labels and (wish.label is None or wish.label < 0 or (classes is not None and wish.label >= classes)):
        allowed = "from 0" if classes is None else f"0 to {classes - 1}"
        raise RecipeError(f"--label: this model draws a class, got {wish.label}; give its number, {allowed}")
    if not takes_labels and wish.label is not None:
        raise RecipeError("--label: this model takes no class; leave it out")
    check_image(wish)
    if wish.image is not None and pipeline.image is None:
        raise RecipeError(
            "--image: there is no encoder of pictures here; calibrate a pipeline that begins with pictures, and export it with "
            "--image-to-image"
        )
    for text in (wish.prompt or "", wish.negative):
        if len(text) > LONGEST:
            raise RecipeError(f"a prompt has {len(text):,} characters, allowed are {LONGEST:,}; shorten it")
        found = WEIGHTED.search(text)
        if found is not None:
            raise RecipeError(
                f"prompt {text[:40]!r}: weights and embeddings such as {found[0][:30]!r} are not supported, the text encoder would "
                "read them as letters; write plain words"
            )


def check_image(wish: Wish) -> None:
    """Raise RecipeError for a strength without a picture."""
    if wish.image is None and wish.strength is not None:
        raise RecipeError(
            "--strength says how much of a picture is changed, and there is none; give --image, or leave it out"
        )


def conditioning_of(
    wish: Wish,
    pipeline: Pipeline,
    folder: Path,
    constants: Mapping[str, Tensor],
    run: RunPart,
    *,
    guided: bool,
    warn: Callable[[str], None],
) -> Conditioning:
    """What the network is told for one picture: one row, float32.

    Args:
        folder: that ``pipeline``'s paths are in. constants: of the pipeline. warn: is told what of a prompt is left out.
    """
    tokens = {each.name: Tokens(each, folder) for each in pipeline.tokenizers}
    sides = [wish.prompt or "", *([wish.negative] if guided else [])]
    for text in sides if tokens else ():
        for name, token in tokens.items():
            if count := token.left_out(text):
                warn(f"prompt {text[:40]!r} is too long for {name}: its last {count} tokens are left out")
    outputs: list[dict[str, Tensor]] = [
        {f"{n}.{MASK}": token(text)[1] for n, token in tokens.items()} for text in sides
    ]
    for encoder in pipeline.encoders:
        for text, row in zip(sides, outputs, strict=True):
            ids, mask = tokens[encoder.tokenizer](text)
            found = run(encoder.name, {"ids": ids, "mask": mask} if encoder.mask else {"ids": ids})
            row |= {f"{encoder.name}.{name}": value for name, value in found.items()}
    made = [assemble(pipeline, row) for row in outputs]
    cond = {**_side(constants, "cond"), **made[0]}
    if wish.label is not None:
        cond[LABELS] = torch.tensor([wish.label])
    if not guided:
        return Conditioning(cond)
    uncond = {**_side(constants, "uncond"), **without_prompt(pipeline, made[1], wish.negative)}
    return Conditioning(cond, uncond)


def _side(constants: Mapping[str, Tensor], side: str) -> dict[str, Tensor]:
    return {name.partition(".")[2]: value for name, value in constants.items() if name.startswith(f"{side}.")}
