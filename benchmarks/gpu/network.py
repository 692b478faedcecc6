"""Networks of Stable Diffusion 1.5's size with random weights, made in memory, and what a calibration of them is set up with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import nn

from benchmarks.common import merged, recipe_of
from benchmarks.sd15 import TEXT, TOKENS, config
from dq_toolchain.toolchain.disk.files import write_tensors
from dq_toolchain.toolchain.models.loading import Model, build_network
from dq_toolchain.toolchain.recipe.sections import Recipe

NOWHERE = Path("<random>")
"""In the place of a model's folder: there is none, and no defaults are read from it."""
ROWS = 4
"""Of text states, taken in turn."""


@dataclass(frozen=True)
class Size:
    """All widths divided by ``scale``; ``steps``: of the sampler. ``changes``: of the network's config."""

    scale: float
    steps: int
    changes: Mapping[str, Any] = field(default_factory=dict)


FULL = Size(1.0, 20)
TINY = Size(24.0, 4, {
    "sample_size": 8, "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 8, "attention_head_dim": 2,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
})  # fmt: skip


def random_model(size: Size, device: str) -> Model:
    """Weights drawn on ``device``, which is where that is quick, and kept on the CPU, where a calibration takes them from."""
    settings: dict[str, Any] = {**config(size.scale), **size.changes, "_class_name": "UNet2DConditionModel"}
    network = build_network(settings)
    randomize(network, device)
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False)
    described = dict(scheduler.config) | {"_class_name": "DDIMScheduler"}
    kept = dict(network.config) | {"_class_name": settings["_class_name"]}  # type: ignore[arg-type]
    described, kept = ({k: v for k, v in each.items() if k != "_use_default_values"} for each in (described, kept))
    return Model("random", "0" * 64, kept, described, network, NOWHERE)


@torch.no_grad()
def randomize(network: nn.Module, device: str) -> None:
    """Parameters on the meta device become real: products keep the size of what they are given, norms do nothing."""
    generator = torch.Generator(device).manual_seed(0)
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            value = torch.zeros(parameter.shape, device=device)
            if parameter.dim() > 1:
                value.normal_(0, 1 / math.sqrt(parameter[0].numel()), generator=generator)
            elif name == "weight":
                value.fill_(1.0)
            setattr(module, name, nn.Parameter(value.cpu(), requires_grad=False))


def recipe_for(size: Size, device: str, scratch: Path, **sections: dict[str, Any]) -> Recipe:
    """Guidance 7.5, text states from a file in ``scratch``, and ``sections``."""
    rows, generator = scratch / "rows.safetensors", torch.Generator().manual_seed(0)
    shape = (ROWS, TOKENS, int(TEXT / size.scale))
    write_tensors(
        rows, {f"{side}.encoder_hidden_states": torch.randn(shape, generator=generator) for side in ("cond", "uncond")}
    )
    return recipe_of(
        merged(
            {
                "model": {"path": NOWHERE},
                "sampler": {"steps": size.steps, "guidance": 7.5},
                "conditioning": {"file": rows},
                "run": {"device": device},
            },
            sections,
        )
    )
