"""A folder as the hub has it, small: published configs as they are, random weights, tokenizers of a few letters."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2, VQModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5Tokenizer

from dq_toolchain.toolchain.disk.files import write_tensors
from scripts.published.encoders import TOKENS, text_config, tokenizer
from scripts.published.layouts import WIDTH, Layout

CLASSES = {"ada_norm_zero": "DiTTransformer2DModel", "ada_norm_single": "PixArtTransformer2DModel"}
ENCODERS = {"clip": CLIPTextModel, "projection": CLIPTextModelWithProjection, "t5": T5EncoderModel}
TEXT_WIDTHS = ("caption_channels", "cap_feat_dim", "joint_attention_dim")
STORED = "conditioning.safetensors"
TOKENIZERS = {"clip": "CLIPTokenizer", "projection": "CLIPTokenizer", "t5": "T5Tokenizer"}


def build(layout: Layout, folder: Path) -> Path:
    torch.manual_seed(0)
    config = dict(layout.network)
    kind = CLASSES.get(config.get("norm_type", ""), config["_class_name"])
    network = getattr(diffusers, kind).from_config({**config, "_class_name": kind})
    network.save_pretrained(folder / layout.part)
    _write(folder / layout.part / "config.json", config)
    _write(folder / "scheduler" / "scheduler_config.json", layout.scheduler)
    index: dict[str, Any] = {
        "_class_name": layout.pipeline, "_diffusers_version": "0.21.4", "scheduler": ["diffusers", layout.scheduler["_class_name"]],
        layout.part: ["diffusers", config["_class_name"]],
    }  # fmt: skip
    for number, encoder in enumerate(layout.encoders, 1):
        tail = "" if number == 1 else f"_{number}"
        _encoder(encoder, layout).save_pretrained(folder / f"text_encoder{tail}")
        (t5_tokenizer() if encoder == "t5" else tokenizer()).save_pretrained(folder / f"tokenizer{tail}")
        index[f"text_encoder{tail}"] = ["transformers", ENCODERS[encoder].__name__]
        index[f"tokenizer{tail}"] = ["transformers", TOKENIZERS[encoder]]
    if layout.stored:
        write_tensors(folder / STORED, _embeddings(layout))
        for name in ("text_encoder", "tokenizer"):
            index[name] = [None, None]
    if layout.pipeline == "LDMPipeline":
        _vq().save_pretrained(folder / "vqvae")
        index["vqvae"] = ["diffusers", "VQModel"]
    elif layout.pipeline.startswith("Flux2"):
        _vae_of_flux_2(layout.latent_channels).save_pretrained(folder / "vae")
        index["vae"] = ["diffusers", "AutoencoderKLFlux2"]
    elif layout.stored:
        index["vae"] = [None, None]
    elif layout.encoders or layout.part == "transformer":
        _vae(layout.latent_channels).save_pretrained(folder / "vae")
        index["vae"] = ["diffusers", "AutoencoderKL"]
    if layout.pipeline == "DiTPipeline":
        index["id2label"] = {"0": "tench"}
    _write(folder / "model_index.json", {**index, **layout.index})
    if layout.after is not None:
        layout.after(folder)
    return folder


def _write(path: Path, data: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2) + "\n")


def _encoder(name: str, layout: Layout) -> Any:
    if name != "t5":
        return ENCODERS[name](text_config(WIDTH))
    width = layout.network.get("joint_attention_dim", WIDTH)
    config = T5Config(
        vocab_size=64, d_model=width, d_ff=2 * width, d_kv=8, num_heads=2, num_layers=2, feed_forward_proj="gated-gelu"
    )
    return T5EncoderModel(config)


def t5_tokenizer() -> T5Tokenizer:
    """Letters, alone and at the beginning of a word."""
    pieces = ["▁", *string.ascii_lowercase, *(f"▁{letter}" for letter in string.ascii_lowercase)]
    vocabulary = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        *((piece, -2.0 - 0.01 * i) for i, piece in enumerate(pieces)),
    ]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=TOKENS)


def _embeddings(layout: Layout) -> dict[str, torch.Tensor]:
    """What a text encoder would give for two prompts and the negative one; where they are of different length, with masks."""
    longest, width = max(layout.stored), next(layout.network[key] for key in TEXT_WIDTHS if key in layout.network)
    rows = torch.randn(len(layout.stored), longest, width)
    tensors = {"cond.encoder_hidden_states": rows[:-1], "uncond.encoder_hidden_states": rows[-1:]}
    if min(layout.stored) < longest:
        masks = (torch.arange(longest) < torch.tensor(layout.stored)[:, None]).float()
        tensors |= {"cond.encoder_attention_mask": masks[:-1], "uncond.encoder_attention_mask": masks[-1:]}
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _vae(channels: int) -> AutoencoderKL:
    return AutoencoderKL(block_out_channels=(4, 4, 4, 4), down_block_types=("DownEncoderBlock2D",) * 4,
                         up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=channels, norm_num_groups=2)  # fmt: skip


def _vae_of_flux_2(channels: int) -> AutoencoderKLFlux2:
    """A token of FLUX.2 is 2x2 latents of this one."""
    return AutoencoderKLFlux2(block_out_channels=(4, 4, 4, 4), layers_per_block=1, latent_channels=channels // 4,
                              norm_num_groups=2)  # fmt: skip


def _vq() -> VQModel:
    return VQModel(block_out_channels=(4,), latent_channels=3, norm_num_groups=2, num_vq_embeddings=8)
