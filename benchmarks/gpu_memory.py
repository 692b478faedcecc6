"""What a calibration of large networks needs of a GPU's memory, by the project's own estimate: no weights, no GPU, shapes alone.

    python -m benchmarks.gpu_memory [--models sd15,sdxl,flux]

The estimate is the one that `calibrate` says before it starts (calibrate/prepare/memory.py). Rows are Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import DDIMScheduler, FluxTransformer2DModel, UNet2DConditionModel
from torch import Tensor, nn

from benchmarks.common import merged, recipe_of
from benchmarks.gpu.network import NOWHERE
from benchmarks.sd15 import config
from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.data.samples import Samples
from dq_toolchain.calibrate.methods import effective, resolve
from dq_toolchain.calibrate.network.activation_memory import activation_memory_of
from dq_toolchain.calibrate.network.insert import Prepared
from dq_toolchain.calibrate.prepare.memory import estimate
from dq_toolchain.toolchain.models.loading import Model
from dq_toolchain.toolchain.sampler.conditioning import Conditioning
from dq_toolchain.toolchain.sampler.denoiser import Denoiser
from dq_toolchain.toolchain.sampler.probe import probe
from dq_toolchain.toolchain.sampler.step_groups import even_step_groups

STEPS, GUIDANCE = 20, 7.5
GPU = torch.device("cuda")


@dataclass(frozen=True)
class Large:
    """A network by its shapes: the latent's, and those of its other inputs, one row each."""

    title: str
    make: Callable[[], nn.Module]
    latent: tuple[int, ...]
    inputs: Mapping[str, tuple[int, ...]]
    guided: bool = True


class Flux(nn.Module):
    """FLUX.1's transformer as a network of our kind: the latent's places become tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = FluxTransformer2DModel(guidance_embeds=True)

    def forward(self, sample: Tensor, timestep: Tensor, texts: Tensor, pooled: Tensor) -> Tensor:
        """sample (B, 64, H, W), texts (B, T, 4096), pooled (B, 768)."""
        height, width = sample.shape[2:]
        places = torch.zeros(height * width, 3)
        out = self.inner(
            hidden_states=sample.flatten(2).transpose(1, 2), encoder_hidden_states=texts, pooled_projections=pooled,
            timestep=timestep / 1000, guidance=torch.ones_like(timestep), img_ids=places,
            txt_ids=torch.zeros(texts.shape[1], 3), return_dict=False,
        )[0]  # fmt: skip
        moved: Tensor = out.transpose(1, 2).reshape(sample.shape)
        return moved


def _sdxl() -> dict[str, Any]:
    """Of stable-diffusion-xl-base-1.0."""
    return {
        "sample_size": 128, "block_out_channels": (320, 640, 1280), "layers_per_block": 2, "cross_attention_dim": 2048,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": (5, 10, 20), "transformer_layers_per_block": (1, 2, 10), "use_linear_projection": True,
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
    }  # fmt: skip


MODELS = {
    "sd15": Large("Stable Diffusion 1.5, 512x512", lambda: UNet2DConditionModel(**config(1.0)), (4, 64, 64),
                  {"encoder_hidden_states": (77, 768)}),
    "sdxl": Large("SDXL, 1024x1024", lambda: UNet2DConditionModel(**_sdxl()), (4, 128, 128),
                  {"encoder_hidden_states": (77, 2048), "text_embeds": (1280,), "time_ids": (6,)}),
    "flux": Large("FLUX.1's size, 1024x1024, no guidance", Flux, (64, 64, 64), {"texts": (512, 4096), "pooled": (768,)}, False),
}  # fmt: skip


def context_of(large: Large, samples: int) -> Context:
    """What an estimate looks at. The network has no weights."""
    with init_empty_weights(include_buffers=False):
        network = large.make()
    network.eval().requires_grad_(False)
    table = probe(DDIMScheduler(clip_sample=False), STEPS)
    rows = {name: torch.zeros(1, *shape) for name, shape in large.inputs.items()}
    conditioning, guidance = Conditioning(rows, rows), GUIDANCE if large.guided else 1.0
    start = torch.zeros(1, *large.latent)

    def call(fake: nn.Module) -> Tensor:
        return Denoiser(fake, table, conditioning, guidance)(start, 0)

    every = Samples(start.expand(samples, *large.latent), conditioning, None)
    return Context(
        model=Model("none", "", {}, {}, network, NOWHERE), prepared=Prepared(network=network, splits={}, sites=()), table=table,
        guidance=guidance, step_groups=even_step_groups(table.calls, None), bank=conditioning, samples=every, device=GPU, seed=0,
        activation_memory=activation_memory_of(network, call),
    )  # fmt: skip


COLUMNS: Mapping[str, tuple[dict[str, dict[str, Any]], bool]] = {
    "8 bits": ({}, False),
    "8 bits, `--offload`": ({"run": {"offload": True}}, True),
    "4 bits, at once": ({"quantize": {"weight_bits": 4}}, False),
    "4 bits, in parts": ({"quantize": {"weight_bits": 4}}, True),
    "4 bits, `--offload`": ({"quantize": {"weight_bits": 4}, "run": {"offload": True}}, True),
}
"""Title -> settings beside the defaults, and whether iterations run in parts, sample by sample."""


def row_of(name: str) -> str:
    """Of one network: GB of 1e9 bytes, a cell for each of COLUMNS."""
    large, method = MODELS[name], resolve("accuquant")
    recipes = [
        (effective(recipe_of(merged({"model": {"path": NOWHERE}}, settings))), in_parts)
        for settings, in_parts in COLUMNS.values()
    ]
    context = context_of(large, recipes[0][0].calibrate.samples)
    weights = sum(p.numel() for p in context.network.parameters())
    needs = [estimate(context, recipe, method, in_parts=in_parts) for recipe, in_parts in recipes]
    sizes = [f"{need.on(GPU) / 1e9:,.0f} GB" for need in needs]
    return f"| {' | '.join([large.title, f'{weights / 1e6:,.0f} M', *sizes])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    arguments = parser.parse_args()
    print(f"| network | weights | {' | '.join(COLUMNS)} |")
    print(f"|{'---|' * (2 + len(COLUMNS))}")
    for name in arguments.models.split(","):
        print(row_of(name), flush=True)


if __name__ == "__main__":
    main()
