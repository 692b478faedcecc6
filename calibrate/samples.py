"""Start noise and conditioning of calibration and held-out samples, each sample from its own seed.

Held-out seeds do not depend on the calibration seed: runs with different calibration seeds are judged on the same
pictures, and no held-out sample is ever fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dq_toolchain.toolchain.denoiser import Conditioning
from dq_toolchain.toolchain.errors import ModelError, RecipeError
from dq_toolchain.toolchain.files import read_tensors
from dq_toolchain.toolchain.recipe import Recipe
from dq_toolchain.toolchain.sampler_table import SamplerTable

HELD_OUT = 2**40
FIT_STRIDE = 2**20
"""Seeds: held-out sample i uses HELD_OUT + i; calibration sample i of seed s uses s * FIT_STRIDE + i < HELD_OUT."""


@dataclass(frozen=True)
class Samples:
    """``start`` (M, C, H, W) float32; ``conditioning`` M rows; ``step_noise`` (N, M, C, H, W) or None."""

    start: Tensor
    conditioning: Conditioning
    step_noise: Tensor | None

    def select(self, index: Tensor | slice) -> Samples:
        return Samples(
            self.start[index],
            self.conditioning.select(index),
            None if self.step_noise is None else self.step_noise[:, index],
        )

    def __len__(self) -> int:
        return len(self.start)


def draw(unet: nn.Module, table: SamplerTable, recipe: Recipe, seeds: Sequence[int]) -> Samples:
    """The samples of the given seeds; sample i gets conditioning row i (labels in turn, or the file's rows in turn).

    Raises:
        ModelError: the UNet takes conditioning, or has a latent, that is not supported.
        RecipeError: conditioning is needed and not given, or does not fit the UNet.
    """
    config: Any = unet.config
    shape = _latent_shape(config)
    start, noises = [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        start.append(torch.randn(shape, generator=generator) * table.init_noise_sigma)
        if table.stochastic:
            noises.append(torch.randn((table.calls, *shape), generator=generator))
    conditioning = _conditioning(unet, recipe, len(seeds))
    return Samples(torch.stack(start), conditioning, torch.stack(noises, dim=1) if noises else None)


def held_out_seeds(count: int, first: int = 0) -> list[int]:
    return [HELD_OUT + first + i for i in range(count)]


def calibration_seeds(seed: int, count: int) -> list[int]:
    return [seed * FIT_STRIDE + i for i in range(count)]


def _latent_shape(config: Any) -> tuple[int, int, int]:
    size = config.sample_size
    sides = (size, size) if isinstance(size, int) else tuple(size or ())
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ModelError(
            f"unet/config.json: sample_size is {size!r}, allowed are the latent's side or [height, width]; set it there"
        )
    if config.in_channels != config.out_channels:
        raise ModelError(
            f"unet/config.json: in_channels {config.in_channels} and out_channels {config.out_channels} differ (inpainting, "
            "learned variance), which is not supported; use a model with as many outputs as inputs"
        )
    return config.in_channels, *sides


def _needed(config: Any) -> set[str]:
    """The keywords that the UNet must be called with."""
    for option in ("addition_embed_type", "class_embed_type"):
        if getattr(config, option, None) is not None:
            raise ModelError(
                f"the UNet has {option} = {getattr(config, option)!r}, which is not supported; allowed are models with class "
                "labels (num_class_embeds) and encoder_hidden_states"
            )
    options = {"class_labels": "num_class_embeds", "encoder_hidden_states": "cross_attention_dim"}
    return {keyword for keyword, option in options.items() if getattr(config, option, None) is not None}


def _conditioning(unet: nn.Module, recipe: Recipe, count: int) -> Conditioning:
    config: Any = unet.config
    guidance, file = recipe.sampler.guidance, recipe.conditioning.file
    needed = _needed(config)
    cond: dict[str, Tensor] = {}
    uncond: dict[str, Tensor] = {}
    if file is not None:
        cond, uncond = _from_file(file, config, needed, count)
    elif "class_labels" in needed:
        cond["class_labels"], uncond["class_labels"] = _labels(config.num_class_embeds, recipe, count)
    if not needed <= set(cond):
        raise RecipeError(
            f"this UNet needs {' and '.join(sorted(needed - set(cond)))}, got none: set [conditioning] file (--conditioning) to a "
            "safetensors file with cond.NAME, one row per prompt, and uncond.NAME for guidance"
        )
    if guidance == 1:
        return Conditioning(cond)
    if not needed:
        raise RecipeError(
            f"guidance: got {guidance}, allowed is 1, since this UNet takes no conditioning that could be left out"
        )
    if set(cond) != set(uncond):
        raise RecipeError(
            f"guidance {guidance} needs uncond.{'/'.join(sorted(needed - set(uncond)))} in {file} beside every cond tensor; "
            "add it or set guidance to 1"
        )
    return Conditioning(cond, uncond)


def _labels(classes: int, recipe: Recipe, count: int) -> tuple[Tensor, Tensor]:
    """Class labels in turn, without the one that means "no class"; and that one."""
    null = recipe.conditioning.null_label
    if null is None and recipe.sampler.guidance != 1:
        raise RecipeError(
            'guidance needs [conditioning] null_label, the class label that means "no class"; set it or set guidance to 1'
        )
    if null is not None and null >= classes:
        raise RecipeError(
            f"[conditioning] null_label: got {null}, allowed 0-{classes - 1} (num_class_embeds of the UNet); correct it"
        )
    usable = torch.tensor([label for label in range(classes) if label != null])
    if not len(usable):
        raise RecipeError(f"[conditioning] null_label: got {null}, the UNet's only class label; leave it out")
    return usable[torch.arange(count) % len(usable)], torch.full((count,), 0 if null is None else null)


def _from_file(path: Path, config: Any, needed: set[str], count: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    sides: dict[str, dict[str, Tensor]] = {"cond": {}, "uncond": {}}
    shapes: dict[str, torch.Size] = {}
    tensors = read_tensors(path, "[conditioning] file takes safetensors with cond.NAME and uncond.NAME")
    for name, tensor in sorted(tensors.items()):  # cond before uncond
        side, _, keyword = name.partition(".")
        if side not in sides or keyword not in needed:
            names = (
                f"cond.NAME and uncond.NAME with NAME {' or '.join(sorted(needed))}"
                if needed
                else "none (the UNet takes no conditioning)"
            )
            raise RecipeError(f"{path}: got tensor {name!r}, allowed are {names}; rename or remove it")
        wanted = _misfit(keyword, tensor, config)
        if wanted is not None:
            raise RecipeError(f"{path}: {name} is {_describe(tensor)}, allowed is {wanted}; correct the file")
        if tensor.shape[1:] != shapes.setdefault(keyword, tensor.shape)[1:]:
            raise RecipeError(
                f"{path}: rows of {name} have shape {tuple(tensor.shape[1:])}, those of cond.{keyword} "
                f"{tuple(shapes[keyword][1:])}; pad them to one length"
            )
        rows = tensor[torch.arange(count) % len(tensor)]
        sides[side][keyword] = rows.float() if keyword == "encoder_hidden_states" else rows.long()
    return sides["cond"], sides["uncond"]


def _misfit(keyword: str, tensor: Tensor, config: Any) -> str | None:
    """What the tensor should be, None if it is."""
    if keyword == "class_labels":
        classes = config.num_class_embeds
        whole = tensor.dtype in (torch.int32, torch.int64) and tensor.dim() == 1 and len(tensor) > 0
        good = whole and bool(((tensor >= 0) & (tensor < classes)).all())
        return None if good else f"integer labels 0-{classes - 1} of shape (P,), P at least 1"
    width = config.cross_attention_dim if config.encoder_hid_dim is None else config.encoder_hid_dim
    good = tensor.is_floating_point() and tensor.dim() == 3 and tensor.numel() > 0 and bool(tensor.isfinite().all())
    good = good and (not isinstance(width, int) or tensor.shape[-1] == width)  # a list gives every block its own
    return None if good else f"finite floating-point states of shape (P, T, {width}), P at least 1"


def _describe(tensor: Tensor) -> str:
    low, high = (f"{float(v):g}" for v in torch.aminmax(tensor)) if tensor.numel() else ("none", "none")
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)} with values {low} to {high}"
