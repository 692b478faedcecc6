"""How a pipeline of diffusers uses its text encoders: which states of which layers, joined in which way.

Decided by what the network takes and by the classes of the encoders; what is decided so is compared with the pipeline's own
``encode_prompt`` before it is written, so that a pipeline that does it another way is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import transformers
from torch import Tensor, nn

from dq_toolchain.calibrate.data.encoders import ENCODERS, TOKENIZERS
from dq_toolchain.calibrate.data.prompts import MASK as MASK_INPUT
from dq_toolchain.calibrate.data.prompts import as_called
from dq_toolchain.toolchain.parts import clip, t5
from dq_toolchain.toolchain.parts.part import architecture, filled
from dq_toolchain.toolchain.parts.pipeline import MASK, Encoder, Tokenizer

POOLED_INPUTS = ("text_embeds", "pooled_projections")
STATES = "encoder_hidden_states"
LOWERED = ("PixArtAlphaPipeline", "PixArtSigmaPipeline")
"""Pipelines that put a prompt in lower case and strip it, where they do not clean it further."""


class NotExported(Exception):
    """Why the parts of a pipeline cannot be exported, in words for the user."""


@dataclass(frozen=True)
class TextEncoder:
    """An encoder of a pipeline as a part: ``module`` has FP32 weights."""

    encoder: Encoder
    kind: str
    config: Mapping[str, Any]
    options: Mapping[str, Any]
    module: nn.Module


def text_encoders(
    pipeline: Any, inputs: Collection[str]
) -> tuple[list[TextEncoder], list[Tokenizer], dict[str, tuple[tuple[str, ...], ...]]]:
    """The encoders, their tokenizers, and what becomes of their outputs (``Pipeline.conditioning``).

    Args:
        pipeline: of diffusers, with its text encoders. inputs: names of what the network takes.
    Raises:
        NotExported: an encoder of another class.
    """
    encoders: list[TextEncoder] = []
    tokens: list[Tokenizer] = []
    pooled_input = next((name for name in POOLED_INPUTS if name in inputs), None)
    clip_row: list[str] = []
    rows: list[tuple[str, ...]] = []
    pooled: list[str] = []
    masks: list[tuple[str, ...]] = []
    for encoder_name, tokenizer_name in zip(ENCODERS, TOKENIZERS, strict=True):
        module, tokenizer = getattr(pipeline, encoder_name, None), getattr(pipeline, tokenizer_name, None)
        if module is None or tokenizer is None:
            continue
        if isinstance(module, transformers.CLIPTextModel | transformers.CLIPTextModelWithProjection):
            made = _clip(encoder_name, tokenizer_name, module, pooled_input is not None)
            tokens.append(_tokenizer("clip", tokenizer_name, tokenizer, int(tokenizer.model_max_length), lower=False))
            clip_row.append(f"{encoder_name}.hidden")
            pooled += [f"{encoder_name}.pooled"] if "pooled" in made.encoder.outputs else []
        elif isinstance(module, transformers.T5EncoderModel):
            length = int(as_called(type(pipeline)).get("max_sequence_length", tokenizer.model_max_length))
            made = _t5(encoder_name, tokenizer_name, module, length, MASK_INPUT in inputs)
            lower = type(pipeline).__name__ in LOWERED
            tokens.append(_tokenizer("t5", tokenizer_name, tokenizer, length, lower=lower))
            rows.append((f"{encoder_name}.hidden",))
            masks.append((f"{tokenizer_name}.{MASK}",))
        else:
            raise NotExported(
                f"{encoder_name} is a {type(module).__name__}; text encoders of classes CLIPTextModel, CLIPTextModelWithProjection "
                "and T5EncoderModel are exported"
            )
        encoders.append(made)
    conditioning: dict[str, tuple[tuple[str, ...], ...]] = {}
    if encoders:
        conditioning[STATES] = (*((tuple(clip_row),) if clip_row else ()), *rows)
    if pooled_input is not None and pooled:
        conditioning[pooled_input] = (tuple(pooled),)
    if MASK_INPUT in inputs and masks:
        conditioning[MASK_INPUT] = tuple(masks)
    return encoders, tokens, conditioning


def _clip(name: str, tokenizer: str, module: Any, is_pooled: bool) -> TextEncoder:
    config = _config(module, clip.KEYS)
    if getattr(module.config, "use_attention_mask", False):
        raise NotExported(f"{name}: use_attention_mask in its config is not supported")
    state = {key.removeprefix("text_model."): value for key, value in module.state_dict().items()}
    takes_mask = is_pooled and "text_projection.weight" in state
    options = {"skip": 1 if is_pooled else 0, "pooled": takes_mask}
    outputs = ("hidden", "pooled") if takes_mask else ("hidden",)
    made = _filled("clip", config, options, state)
    about = Encoder(name=name, tokenizer=tokenizer, mask=takes_mask, outputs=outputs)
    return TextEncoder(about, "clip", config, options, made)


def _t5(name: str, tokenizer: str, module: Any, length: int, masked: bool) -> TextEncoder:
    config = _config(module, t5.KEYS)
    state = {key.removeprefix("encoder."): value for key, value in module.state_dict().items()}
    state["position_table"] = t5.position_table(state[t5.BIAS], length, int(config["relative_attention_max_distance"]))
    state.setdefault("shared.weight", state.get("embed_tokens.weight"))
    options = {"length": length, "masked": masked}
    made = _filled("t5", config, options, state)
    return TextEncoder(
        Encoder(name=name, tokenizer=tokenizer, mask=masked, outputs=("hidden",)), "t5", config, options, made
    )


def _config(module: Any, keys: Collection[str]) -> dict[str, Any]:
    """Of a config what decides the function: no paths, no versions."""
    return {key: getattr(module.config, key) for key in keys if hasattr(module.config, key)}


def _filled(kind: str, config: Mapping[str, Any], options: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    module = architecture(kind, config, options)
    return filled(module, {name: state[name].float() for name in module.state_dict()})


def _tokenizer(kind: str, name: str, library: Any, length: int, *, lower: bool) -> Tokenizer:
    begin = library.bos_token_id if kind == "clip" else None
    end, pad = library.eos_token_id, library.pad_token_id
    return Tokenizer(name=name, kind=kind, folder=f"{name}", length=length, begin=begin, end=end, pad=pad, lower=lower)
