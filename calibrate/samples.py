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
        return Samples(self.start[index], self.conditioning.select(index),
                       None if self.step_noise is None else self.step_noise[:, index])

    def __len__(self) -> int:
        return len(self.start)


def draw(unet: nn.Module, table: SamplerTable, recipe: Recipe, seeds: Sequence[int]) -> Samples:
    """The samples of the given seeds; sample i gets conditioning row i (labels in turn, or the file's rows in turn).

    Raises:
        ModelError: the UNet takes conditioning that is not supported.
        RecipeError: conditioning is needed and not given, or does not fit the UNet.
    """
    config: Any = unet.config
    size = config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    shape = (config.in_channels, height, width)
    start, noises = [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        start.append(torch.randn(shape, generator=generator) * table.init_noise_sigma)
        if table.stochastic:
            noises.append(torch.randn((table.calls, *shape), generator=generator))
    conditioning = _conditioning(unet, recipe, len(seeds))
    return Samples(torch.stack(start), conditioning, torch.stack(noises, dim=1) if noises else None)


def held_out_seeds(count: int) -> list[int]:
    return [HELD_OUT + i for i in range(count)]


def calibration_seeds(seed: int, count: int) -> list[int]:
    return [seed * FIT_STRIDE + i for i in range(count)]


def _conditioning(unet: nn.Module, recipe: Recipe, count: int) -> Conditioning:
    config: Any = unet.config
    guided = recipe.sampler.guidance != 1
    if getattr(config, "addition_embed_type", None) is not None:
        raise ModelError(f"the UNet needs addition_embed_type = {config.addition_embed_type!r} (added_cond_kwargs), which is "
                         "not supported; allowed: class labels and encoder_hidden_states")
    cond: dict[str, Tensor] = {}
    uncond: dict[str, Tensor] = {}
    classes = getattr(config, "num_class_embeds", None)
    if classes is not None and recipe.conditioning.file is None:
        null = recipe.conditioning.null_label
        if null is not None and null >= classes:
            raise RecipeError(f"[conditioning] null_label: got {null}, allowed 0-{classes - 1} (num_class_embeds of the UNet)")
        if guided and null is None:
            raise RecipeError("guidance needs [conditioning] null_label, the class label that means \"no class\"")
        usable = torch.tensor([label for label in range(classes) if label != null])
        cond["class_labels"] = usable[torch.arange(count) % len(usable)]
        uncond["class_labels"] = torch.full((count,), null if null is not None else 0)
    elif recipe.conditioning.file is not None:
        cond, uncond = _from_file(recipe.conditioning.file, count)
    if getattr(config, "cross_attention_dim", None) is not None and "encoder_hidden_states" not in cond:
        raise RecipeError("this UNet needs text states: set [conditioning] file (--conditioning) to a safetensors file with "
                          "cond.encoder_hidden_states (P, T, D), and uncond.encoder_hidden_states for guidance")
    if guided and set(cond) != set(uncond):
        raise RecipeError(f"guidance {recipe.sampler.guidance} needs uncond.{'/'.join(sorted(set(cond) - set(uncond))) or 'NAME'} "
                          "beside every cond tensor; add it or set guidance to 1")
    return Conditioning(cond, uncond if guided else {})


def _from_file(path: Path, count: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    sides: dict[str, dict[str, Tensor]] = {"cond": {}, "uncond": {}}
    for name, tensor in read_tensors(path, "make it with safetensors, tensors cond.NAME and uncond.NAME").items():
        side, _, keyword = name.partition(".")
        if side not in sides or keyword not in ("encoder_hidden_states", "class_labels") or tensor.dim() == 0:
            raise RecipeError(f"{path}: tensor {name!r}: allowed are cond.NAME and uncond.NAME with NAME encoder_hidden_states "
                              "or class_labels, one row per prompt")
        rows = tensor[torch.arange(count) % len(tensor)]
        sides[side][keyword] = rows.float() if rows.is_floating_point() else rows.long()
    return sides["cond"], sides["uncond"]
