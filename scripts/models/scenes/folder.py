"""The pipeline's folder, as diffusers has it: fp16 weights, everything safetensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

from dq_toolchain.toolchain.disk.files import write_json
from scripts.models.scenes.diffusion import Drawer
from scripts.models.scenes.held_out import CALIBRATION_SEED, held_out

PROMPTS = 64
"""For calibration, in prompts.txt."""

INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": diffusers.__version__,
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def read_tokenizer(folder: Path) -> CLIPTokenizer:
    """CLIP's tokenizer from vocab.json and merges.txt."""
    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder)
    return tokenizer


def save_folder(drawer: Drawer, vae: AutoencoderKL, out: Path) -> None:
    """Write all but ``tokenizer/``, which lies there. The networks are not changed."""
    text_encoder = drawer.vocabulary.whole_encoder(drawer.text_encoder)
    parts = {"text_encoder": text_encoder, "unet": drawer.unet, "vae": vae}
    for name, network in parts.items():
        single = {key: tensor.clone() for key, tensor in network.state_dict().items()}
        network.half().save_pretrained(out / name)
        network.float().load_state_dict(single)
        for file in (out / name).glob("*.safetensors"):
            file.chmod(0o644)  # safetensors lets only the owner read it
    config = (
        out / "text_encoder" / "config.json"
    )  # transformers loads in the type that stands here, diffusers in float32
    write_json(config, json.loads(config.read_text()) | {"dtype": "float32"})
    drawer.scheduler.save_pretrained(out / "scheduler")
    write_json(out / "model_index.json", INDEX)
    _, prompts = held_out(PROMPTS, CALIBRATION_SEED)
    (out / "prompts.txt").write_text("\n".join(prompts) + "\n")


def _change(file: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    write_json(file, change(json.loads(file.read_text())))
