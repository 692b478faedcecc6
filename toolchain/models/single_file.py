"""A file given as a model: what it is, and how to turn it into a folder, which is what is read."""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open

from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.models.hub import STEM
from dq_toolchain.toolchain.models.weight_files import check_whole

PIPELINES = {
    "v1": "StableDiffusionPipeline",
    "v2": "StableDiffusionPipeline",
    "xl_base": "StableDiffusionXLPipeline",
    "playground-v2-5": "StableDiffusionXLPipeline",
    "sd3": "StableDiffusion3Pipeline",
    "sd35_large": "StableDiffusion3Pipeline",
    "sd35_medium": "StableDiffusion3Pipeline",
}
"""diffusers' kind of a single-file checkpoint -> the class that reads it; other kinds hold no network that is supported."""
PICKLES = (".ckpt", ".bin", ".pt", ".pth")
SAFE = (".safetensors", ".sft")
MARKS = (".lora_", "lora_unet", "lora_te", ".lora.", "hada_w1")
FOLDER = "--model takes the folder of a diffusers pipeline or network, or a hub id owner/name"


def refusal(path: Path) -> ModelError:
    """Why a file is not taken as a model, and what to do with it."""
    if not path.is_file():
        why = "it is no regular file" if path.exists() else "no such file"
        return ModelError(f"cannot read {path}: {why}; {FOLDER}")
    kind = path.suffix.lower()
    if path.name.startswith((STEM, "model.")) and (path.parent / "config.json").is_file():
        return ModelError(
            f"{path} is one file of a diffusers folder; give the folder: --model {_pipeline_of(path.parent)}"
        )
    if kind == ".gguf":
        return ModelError(
            f"{path} holds weights that are quantized already (GGUF); give the folder or hub id of the original model"
        )
    if kind == ".onnx":
        return ModelError(
            f"{path} is an exported graph (ONNX); give the folder or hub id of the model it was made from"
        )
    if kind in PICKLES:
        return ModelError(
            f"{path} is a pickle, which is never read, since it can run code; take the same model saved as safetensors, or "
            f"convert it where you trust it: {_one_liner(path, 'StableDiffusionPipeline')}"
        )
    if kind not in SAFE:
        return ModelError(f"{path} is a file; {FOLDER}")
    try:
        return _of_safetensors(path)
    except ModelError as error:
        return error


def _of_safetensors(path: Path) -> ModelError:
    check_whole(path)
    with safe_open(str(path), framework="numpy") as file:
        names = list(file.keys())
        if any(mark in name for name in names for mark in MARKS):
            return ModelError(
                f"{path} holds adapters (LoRA), no network; give the network with --model and this file with --lora"
            )
        if any(name.startswith(("down_blocks.", "transformer_blocks.", "model.down_blocks.")) for name in names):
            return ModelError(
                f"{path} is a network without its config; put it into a folder with the config.json that belongs to it, as "
                f"{STEM}.safetensors, a scheduler_config.json beside it, and give the folder"
            )
        sizes = {name: file.get_slice(name).get_shape() for name in names}
    import torch
    from diffusers.loaders.single_file_utils import infer_diffusers_model_type

    shapes = {name: torch.empty(size, device="meta") for name, size in sizes.items()}
    try:
        kind = infer_diffusers_model_type(shapes)
    except (LookupError, ValueError, RuntimeError, UnboundLocalError, NotImplementedError, AttributeError):
        kind = "unknown"
    if kind == "v1" and not any(name.startswith("model.diffusion_model.") for name in names):
        kind = "unknown"
    if kind not in PIPELINES:
        return ModelError(
            f"{path} is a single-file checkpoint of another kind ({kind}), which is not supported; allowed are Stable "
            "Diffusion, XL and 3"
        )
    return ModelError(
        f"{path} is a single-file checkpoint; turn it into a folder once: {_one_liner(path, PIPELINES[kind])}"
    )


def _one_liner(path: Path, name: str) -> str:
    """diffusers asks the hub for the configs of a model of that kind."""
    target = path.with_suffix("")
    return (
        f'python -c "from diffusers import {name} as P; P.from_single_file({str(path)!r}).save_pretrained({str(target)!r})" '
        f"(connects to the hub once, for the configs), then --model {target}"
    )


def _pipeline_of(folder: Path) -> Path:
    return folder.parent if (folder.parent / "model_index.json").is_file() else folder
