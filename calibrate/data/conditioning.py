"""What samples are conditioned on, in turn: class labels, the rows of a file, or prompts that the pipeline's own encoders read.

A bank has one row per label or prompt, whatever the number of samples; each of its tensors is taken in turn by itself.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dq_toolchain.calibrate.data.adapters import lora_notes
from dq_toolchain.calibrate.data.notes import Warn
from dq_toolchain.calibrate.data.prompts import encoded_prompts
from dq_toolchain.toolchain.disk.files import read_tensors
from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.models.architecture import Input
from dq_toolchain.toolchain.models.architectures import ARCHITECTURES, DISTILLED, inputs_of, latent_shape
from dq_toolchain.toolchain.models.loading import Model
from dq_toolchain.toolchain.models.source import read_config
from dq_toolchain.toolchain.recipe.sections import Recipe
from dq_toolchain.toolchain.sampler.conditioning import Conditioning

PIXELS = 8
"""Pixels per latent, per side, of the usual autoencoder, where a model comes without."""
MOST_LEVELS = 8
NULL_IS_LAST = ("DiTTransformer2DModel",)
"""Networks that keep their last class label for "no class"."""


def guidance_of(config: Mapping[str, Any], recipe: Recipe, warn: Warn = lambda _line: None) -> float:
    """w of the sampler's own guidance, as diffusers' pipelines have it: 1, one conditional call, for every w up to 1, where
    the network is told w instead (there the embedding takes w as it is, below 1 too), and where it was distilled without.

    Args:
        warn: is told of settings that have no effect without guidance.
    """
    w, told = recipe.sampler.guidance, told_guidance(config) != ""
    if w > 1 and config.get(DISTILLED):
        warn(
            f"guidance {w} has no effect: model_index.json says is_distilled, a model made for one conditional call per step, and "
            "its pipeline leaves guidance out; set it to 1"
        )
    elif w > 1 and not told:
        _say_scale(config, w, warn)
        return w
    if 0 < w < 1 and not told:
        warn(f"guidance {w} is none: up to 1 samples are conditional only, as in diffusers' pipelines")
    if recipe.conditioning.negative_prompt:
        why = "this network is told its guidance and has no second call" if told else f"guidance {w} is none"
        why = "a distilled model has no second call" if config.get(DISTILLED) else why
        warn(f"the negative prompt has no effect: {why}")
    return 1.0


def _say_scale(config: Mapping[str, Any], w: float, warn: Warn) -> None:
    architecture = ARCHITECTURES.get(config["_class_name"])
    if architecture is not None and architecture.scale_name != "guidance_scale":
        warn(
            f"guidance {w:g} is f_u + {w:g} (f_c - f_u) with two calls per step, what this model's pipeline calls "
            f"{architecture.scale_name}; its guidance_scale has no effect on this network, which is not told its guidance: set "
            "guidance to 1 for what the pipeline does by itself"
        )
    if architecture is not None and architecture.guidance_less:
        warn(
            f"guidance {w:g} is f_u + {w:g} (f_c - f_u), what this model's pipeline calls guidance_scale "
            f"{w - architecture.guidance_less:g}: give {architecture.guidance_less:g} more than its model card says"
        )


def told_guidance(config: Mapping[str, Any]) -> str:
    """The input of a network that was distilled with guidance (LCM, FLUX dev): it is told w, and needs no second half. Else ""."""
    architecture = ARCHITECTURES.get(config["_class_name"])
    return architecture.told if architecture is not None and architecture.told in inputs_of(config) else ""


def check_conditioning(config: Mapping[str, Any], recipe: Recipe) -> None:
    """What the config decides of ``conditioning_bank``'s refusals, before weights are read.

    Raises:
        ModelError: the network has no size, or takes conditioning that is not supported.
        RecipeError: settings that do not fit the network, or contradict each other.
    """
    latent_shape(config)
    inputs, settings = inputs_of(config), recipe.conditioning
    if settings.file is not None and settings.prompts is not None:
        raise RecipeError("[conditioning] has both file and prompts, allowed is one; leave the other out")
    if settings.prompts is not None and "encoder_hidden_states" not in inputs:
        raise RecipeError("[conditioning] prompts: this network takes no text; leave it out")
    if settings.negative_prompt and "encoder_hidden_states" not in inputs:
        raise RecipeError("[conditioning] negative_prompt: this network takes no text; leave it out")
    architecture = ARCHITECTURES.get(config["_class_name"])
    if guidance_of(config, recipe) != 1.0 and architecture is not None and architecture.rescaled:
        raise RecipeError(
            f"guidance: got {recipe.sampler.guidance}, allowed is up to 1 (none) for {config['_class_name']}: its pipeline "
            "rescales what guidance gives, which no sampler here does; set it to 1, and take a model or --lora that was "
            "distilled to run without guidance"
        )
    if guidance_of(config, recipe) != 1.0 and not any(each.required for each in inputs.values()):
        raise RecipeError(
            f"guidance: got {recipe.sampler.guidance}, allowed is up to 1 (none), since this network takes no conditioning that "
            "could be left out"
        )
    if settings.file is None and "encoder_hidden_states" not in inputs and "class_labels" in inputs:
        _labels(config, recipe)


def conditioning_bank(model: Model, recipe: Recipe, warn: Warn = lambda _line: None) -> Conditioning:
    """The rows that samples take in turn; ``uncond`` is empty without guidance.

    Args:
        warn: is told of prompts that are cut short, and of adapters that are left out.
    Raises:
        ModelError: the network takes conditioning that is not supported.
        RecipeError: conditioning is needed and not given, or does not fit the network.
    """
    check_conditioning(model.config, recipe)
    inputs = inputs_of(model.config)
    needed = {name for name, each in inputs.items() if each.required}
    guided = guidance_of(model.config, recipe) != 1.0
    made = _made(model, recipe)
    bank = _given(model, recipe, inputs, guided, warn)
    for line in lora_notes(model, recipe):
        warn(line)
    cond = dict(bank.cond) | {name: value for name, value in made.items() if name in inputs and name not in bank.cond}
    if not needed <= set(cond):
        raise RecipeError(
            f"this network needs {' and '.join(sorted(needed - set(cond)))}, got none: give the folder of its whole "
            f"pipeline, which encodes "
            "prompts, or set [conditioning] file (--conditioning) to a safetensors file with cond.NAME, one row per "
            "prompt, and uncond.NAME for "
            "guidance"
        )
    _check_together(model.config, cond, recipe)
    if not guided:
        return Conditioning(cond)
    uncond = dict(bank.uncond) | {
        name: value for name, value in made.items() if name in cond and name not in bank.uncond
    }
    if set(cond) != set(uncond):
        raise RecipeError(
            f"guidance {recipe.sampler.guidance} needs uncond.{'/'.join(sorted(set(cond) - set(uncond)))} in "
            f"{recipe.conditioning.file} beside "
            "every cond tensor; add it or set guidance to 1"
        )
    _check_together(model.config, uncond, recipe)
    return Conditioning(cond, uncond)


def _check_together(config: Mapping[str, Any], side: Mapping[str, Tensor], recipe: Recipe) -> None:
    architecture = ARCHITECTURES.get(config["_class_name"])
    fault = None if architecture is None else architecture.fault(side)
    if fault is not None:
        raise RecipeError(
            f"{recipe.conditioning.file or recipe.conditioning.prompts or 'the built-in prompts'}: {fault}"
        )


def first_held_out(rows: int, fitted: int) -> int:
    """The first of ``rows`` that none of ``fitted`` calibration samples takes in turn; 0 if they take all of them."""
    return fitted if fitted < rows else 0


def in_turn(bank: Conditioning, count: int, fitted: int = 0) -> Conditioning:
    """Rows for ``count`` samples; of held-out ones behind those that ``fitted`` calibration samples take, where there are more."""

    def take(side: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: rows[(torch.arange(count) + first_held_out(len(rows), fitted)) % len(rows)]
            for name, rows in side.items()
        }

    return Conditioning(take(bank.cond), take(bank.uncond))


def digest(conditioning: Conditioning) -> str:
    """sha256 over names, shapes and numbers."""
    found = hashlib.sha256()
    for side in (conditioning.cond, conditioning.uncond):
        for name, value in sorted(side.items()):
            found.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
            found.update(value.contiguous().numpy().tobytes())
        found.update(b"|")
    return found.hexdigest()


def _given(model: Model, recipe: Recipe, inputs: Mapping[str, Input], guided: bool, warn: Warn) -> Conditioning:
    settings = recipe.conditioning
    if settings.file is not None:
        return _from_file(settings.file, inputs)
    if "encoder_hidden_states" in inputs:
        cache = recipe.run.out / "prompts"
        return encoded_prompts(model, settings.prompts, settings.negative_prompt, guided, cache, warn)
    if "class_labels" in inputs:
        return _labels(model.config, recipe)
    return Conditioning()


def _made(model: Model, recipe: Recipe) -> dict[str, Tensor]:
    """Inputs that follow from the picture's size and from guidance, one row each."""
    config, shape = model.config, latent_shape(model.config)
    if model.module is not None:
        return {}
    pixels = pixels_of(model.folder) if model.pipeline is None else getattr(model.pipeline, "vae_scale_factor", PIXELS)
    height, width = pixels * shape[1], pixels * shape[2]
    found = {
        "time_ids": torch.tensor([[height, width, 0, 0, height, width]], dtype=torch.float32),
        "resolution": torch.tensor([[height, width]], dtype=torch.float32),
        "aspect_ratio": torch.tensor([[height / width]], dtype=torch.float32),
    }
    told, w = told_guidance(config), recipe.sampler.guidance
    if told:
        width = config.get("time_cond_proj_dim")
        found[told] = torch.tensor([w]) if width is None else _guidance_embedding(w, width)
    return found


def pixels_of(folder: Path) -> int:
    """Pixels per latent, per side, as the pipelines count them: twofold for each level of the autoencoder but one."""
    file = folder / "vae" / "config.json"
    levels = read_config(file).get("block_out_channels") if file.is_file() else None
    return 2 ** (len(levels) - 1) if isinstance(levels, list) and 0 < len(levels) <= MOST_LEVELS else PIXELS


def _guidance_embedding(guidance: float, width: int) -> Tensor:
    """(1, width) float32. Latent consistency models (Luo et al. 2023): sines and cosines of 1000 (w - 1)."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10_000.0) / (half - 1)))
    angles = 1000.0 * (guidance - 1.0) * frequencies
    return torch.nn.functional.pad(torch.cat([angles.sin(), angles.cos()]), (0, width % 2))[None]


def _labels(config: Mapping[str, Any], recipe: Recipe) -> Conditioning:
    """Every class label but the one that means "no class"; and that one."""
    classes = inputs_of(config)["class_labels"].classes
    assert classes is not None
    null = recipe.conditioning.null_label
    if null is None and config["_class_name"] in NULL_IS_LAST:
        null = classes - 1
    if null is None and guidance_of(config, recipe) != 1.0:
        raise RecipeError(
            'guidance needs [conditioning] null_label, the class label that means "no class"; set it or set guidance to 1'
        )
    if null is not None and null >= classes:
        raise RecipeError(
            f"[conditioning] null_label: got {null}, allowed 0-{classes - 1} (the network's class labels); correct it"
        )
    usable = torch.tensor([label for label in range(classes) if label != null])
    if not len(usable):
        raise RecipeError(f"[conditioning] null_label: got {null}, the network's only class label; leave it out")
    return Conditioning({"class_labels": usable}, {"class_labels": torch.tensor([0 if null is None else null])})


def _from_file(path: Path, inputs: Mapping[str, Input]) -> Conditioning:
    sides: dict[str, dict[str, Tensor]] = {"cond": {}, "uncond": {}}
    shapes: dict[str, torch.Size] = {}
    tensors = read_tensors(path, "[conditioning] file takes safetensors with cond.NAME and uncond.NAME")
    for name, tensor in sorted(tensors.items()):  # cond before uncond
        side, _, keyword = name.partition(".")
        if side not in sides or keyword not in inputs:
            names = (
                f"cond.NAME and uncond.NAME with NAME {' or '.join(sorted(inputs))}"
                if inputs
                else "none (the network takes no conditioning)"
            )
            raise RecipeError(f"{path}: got tensor {name!r}, allowed are {names}; rename or remove it")
        wanted = inputs[keyword].fault(tensor)
        if wanted is not None:
            raise RecipeError(f"{path}: {name} is {_describe(tensor)}, allowed is {wanted}; correct the file")
        if tensor.shape[1:] != shapes.setdefault(keyword, tensor.shape)[1:]:
            raise RecipeError(
                f"{path}: rows of {name} have shape {tuple(tensor.shape[1:])}, those of cond.{keyword} "
                f"{tuple(shapes[keyword][1:])}; pad them to one length"
            )
        sides[side][keyword] = tensor.float() if inputs[keyword].classes is None else tensor.long()
    _check_rows(path, tensors)
    return Conditioning(sides["cond"], sides["uncond"])


def _check_rows(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Samples take the rows of each tensor in turn: of two lengths, they would take two rows that do not belong together."""
    several = {name: len(tensor) for name, tensor in sorted(tensors.items()) if len(tensor) > 1}
    first = next(iter(several), "")
    other = next((name for name, rows in several.items() if rows != several[first]), None)
    if other is not None:
        raise RecipeError(
            f"{path}: {first} has {several[first]} rows and {other} {several[other]}, allowed is the same number, one row per "
            "prompt, or one row for all; correct the file"
        )


def _describe(tensor: Tensor) -> str:
    low, high = (f"{float(v):g}" for v in torch.aminmax(tensor)) if tensor.numel() else ("none", "none")
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)} with values {low} to {high}"
