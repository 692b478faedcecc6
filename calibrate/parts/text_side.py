"""The text encoders of a pipeline as parts, proven against the pipeline's own way to encode a prompt."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dq_toolchain.calibrate.data.prompts import encode
from dq_toolchain.calibrate.parts.quantize import quantized
from dq_toolchain.calibrate.parts.text import NotExported, TextEncoder, text_encoders
from dq_toolchain.toolchain.metrics import relative_error
from dq_toolchain.toolchain.parts.assembly import assemble
from dq_toolchain.toolchain.parts.part import Part
from dq_toolchain.toolchain.parts.pipeline import MASK, Encoder, Pipeline, Tokenizer
from dq_toolchain.toolchain.parts.tokens import FILE, Tokens

SAME = 1e-4
"""Relative error of our text encoders against the pipeline's, in FP32: above it they are used in another way."""


@dataclass(frozen=True, kw_only=True)
class TextSide:
    """Attributes: ``rows``: what the pipeline itself makes of ``prompts``, by input of the network. Others as of ``Pipeline``."""

    parts: tuple[Part, ...] = ()
    encoders: tuple[Encoder, ...] = ()
    tokenizers: tuple[Tokenizer, ...] = ()
    conditioning: Mapping[str, tuple[tuple[str, ...], ...]]
    zeros: bool = False
    prompts: tuple[str, ...] = ()
    rows: Mapping[str, Tensor]


NO_TEXT = TextSide(conditioning={}, rows={})


@torch.no_grad()
def text_side(
    pipeline: Any,
    config: Mapping[str, Any],
    inputs: Collection[str],
    prompts: list[str],
    measured: list[str],
    folder: Path,
) -> TextSide:
    """Quantize the text encoders, and write their tokenizers into the folder.

    Args:
        pipeline: of diffusers. config, inputs: of the network.
        prompts: that the pipeline's answers are kept of. measured: other ones, for ranges.
    Raises:
        NotExported: an encoder or a tokenizer of another class, or a pipeline that makes something else of them.
    """
    encoders, tokenizers, conditioning = text_encoders(pipeline, inputs)
    for about in tokenizers:
        _write_tokenizer(getattr(pipeline, about.name), folder / about.folder)
    tokens = {about.name: Tokens(about, folder) for about in tokenizers}
    rows, _ = encode(pipeline, config, prompts, None)
    made = Pipeline(
        pipeline=type(pipeline).__name__,
        tokenizers=tuple(tokenizers),
        encoders=tuple(each.encoder for each in encoders),
        conditioning=conditioning,
        constants=None,
        zeros_without_negative=bool(getattr(pipeline.config, "force_zeros_for_empty_prompt", False)),
        decoder=None,
    )
    calls = {each.encoder.name: [_call(each, tokens, prompt) for prompt in prompts] for each in encoders}
    _prove(made, encoders, tokens, calls, prompts, rows)
    parts = []
    for each in encoders:
        given = [_call(each, tokens, prompt) for prompt in measured]
        outputs = each.encoder.outputs
        parts.append(quantized(each.encoder.name, each.kind, each.config, each.options, each.module, given, outputs))
    return TextSide(
        parts=tuple(parts),
        encoders=made.encoders,
        tokenizers=made.tokenizers,
        conditioning=conditioning,
        zeros=made.zeros_without_negative,
        prompts=tuple(prompts),
        rows=rows,
    )


def _call(each: TextEncoder, tokens: Mapping[str, Tokens], prompt: str) -> dict[str, Tensor]:
    ids, mask = tokens[each.encoder.tokenizer](prompt)
    return {"ids": ids, "mask": mask} if each.encoder.mask else {"ids": ids}


def _prove(
    made: Pipeline,
    encoders: list[TextEncoder],
    tokens: Mapping[str, Tokens],
    calls: Mapping[str, list[dict[str, Tensor]]],
    prompts: list[str],
    rows: Mapping[str, Tensor],
) -> None:
    """Raise NotExported unless our encoders with FP32 weights give what the pipeline gives."""
    for index, prompt in enumerate(prompts):
        outputs = {f"{name}.{MASK}": token(prompt)[1] for name, token in tokens.items()}
        for each in encoders:
            found = each.module(*calls[each.encoder.name][index].values())
            outputs |= {f"{each.encoder.name}.{n}": x for n, x in zip(each.encoder.outputs, found, strict=True)}
        ours = assemble(made, outputs)
        if ours.keys() != rows.keys():
            raise NotExported(f"{made.pipeline} makes {', '.join(rows)} of a prompt, its encoders {', '.join(ours)}")
        for name, value in ours.items():
            want = rows[name][index : index + 1]
            error = relative_error(value, want).max().item() if value.shape == want.shape else float("inf")
            if not error < SAME:
                raise NotExported(
                    f"{made.pipeline} uses its text encoders in a way that is not known: {name} differs by {error:.1e}, allowed "
                    f"is {SAME}"
                )


def _write_tokenizer(library: Any, folder: Path) -> None:
    backend = getattr(library, "backend_tokenizer", None)
    if backend is None:
        raise NotExported(f"{type(library).__name__} has no file tokenizer.json")
    folder.mkdir(parents=True)
    backend.no_truncation()
    backend.no_padding()
    backend.save(str(folder / FILE), pretty=False)
