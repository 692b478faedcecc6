"""Small networks whose prompts a language model reads, and their pipelines, with a tokenizer made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import Gemma2Config, Gemma2Model, Qwen2Tokenizer, Qwen3Config, Qwen3Model

from tests.tiny_pipelines import WIDTH, flux2, sana, t5_tokenizer

CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>a\n{% endif %}"
)


def z_image(**changes: Any) -> ZImageTransformer2DModel:
    """Refiners of picture and caption, then both in one sequence; latents (4, 8, 8), four of them a token, padded from 16 to 32."""
    settings = {
        "in_channels": 4, "dim": 16, "n_layers": 1, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2, "cap_feat_dim": WIDTH,
        "axes_dims": (2, 2, 4), "axes_lens": (128, 16, 16),
    }  # fmt: skip
    network = ZImageTransformer2DModel(**(settings | changes))
    for token in (network.x_pad_token, network.cap_pad_token):
        torch.nn.init.normal_(token)
    return network


def qwen_image(**changes: Any) -> QwenImageTransformer2DModel:
    """Text and picture in one sequence, text masked; latents (4, 8, 8), four of them a token."""
    settings = {
        "in_channels": 16, "out_channels": 4, "num_layers": 2, "attention_head_dim": 8, "num_attention_heads": 2,
        "joint_attention_dim": WIDTH, "axes_dims_rope": (2, 2, 4),
    }  # fmt: skip
    return QwenImageTransformer2DModel(**(settings | changes))


def chat_tokenizer() -> Qwen2Tokenizer:
    """Single bytes, and what a chat template puts around a prompt."""
    words = [*sorted(ByteLevel.alphabet()), "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    made = Qwen2Tokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=1024)
    made.add_special_tokens({"additional_special_tokens": words[-2:]})
    made.chat_template = CHAT
    return made


def qwen3(layers: int, width: int) -> Qwen3Model:
    return Qwen3Model(
        Qwen3Config(
            vocab_size=300, hidden_size=width, intermediate_size=8, num_hidden_layers=layers, num_attention_heads=1,
            num_key_value_heads=1, head_dim=8, max_position_embeddings=1024,
        )
    )  # fmt: skip


def save_chat(folder: Path, name: str) -> Path:
    """Pipelines whose text encoder is a language model: "klein" joins the states of three of its layers, "z_image" takes one's."""
    torch.manual_seed(6)
    flow = FlowMatchEulerDiscreteScheduler(shift=3.0)
    if name == "klein":
        parts = {
            "transformer": flux2(joint_attention_dim=3 * WIDTH),
            "text_encoder": qwen3(27, WIDTH),
            "is_distilled": True,
        }
    else:
        parts = {"transformer": z_image(), "text_encoder": qwen3(2, WIDTH)}
    kind = Flux2KleinPipeline if name == "klein" else ZImagePipeline
    kind(scheduler=flow, vae=None, tokenizer=chat_tokenizer(), **parts).save_pretrained(folder)
    file = folder / "transformer" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"sample_size": 4 if name == "klein" else 8}))
    return folder


def sana_pipeline() -> SanaPipeline:
    """SANA's pipeline: a language model reads an instruction and the prompt. Without an autoencoder."""
    torch.manual_seed(7)
    config = Gemma2Config(
        vocab_size=30, hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=4, pad_token_id=0, bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    return SanaPipeline(
        transformer=sana(),
        vae=None,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        text_encoder=Gemma2Model(config).eval(),
        tokenizer=t5_tokenizer(),
    )
