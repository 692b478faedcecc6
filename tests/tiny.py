"""Small random networks that every test can build in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel, UNet2DModel
from torch import Tensor, nn

from dq_toolchain.toolchain.quant.sites import attention_layers
from dq_toolchain.toolchain.sampler.conditioning import Conditioning

SIZE = 8


def tiny_unet(seed: int = 0, width: int = 16) -> UNet2DModel:
    """Class-conditional, 8x8, one attention level, random weights."""
    torch.manual_seed(seed)
    unet = UNet2DModel(
        sample_size=SIZE,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(width, 2 * width),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=8,
        num_class_embeds=11,
    )
    return unet.eval().requires_grad_(False)


def small_unet(seed: int = 0, width: int = 8) -> UNet2DModel:
    """One level, no attention: 17 sites, among them split 1x1 convolutions; lowers in a few seconds."""
    torch.manual_seed(seed)
    unet = UNet2DModel(
        sample_size=SIZE,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(width,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        mid_block_type=None,
        norm_num_groups=4,
        num_class_embeds=11,
    )
    return unet.eval().requires_grad_(False)


def tiny_condition_unet(seed: int = 0) -> UNet2DConditionModel:
    """Stable Diffusion's topology scaled down: cross-attention over 8-wide text states."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=SIZE,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=2,
        cross_attention_dim=8,
    )
    return unet.eval().requires_grad_(False)


def with_small_weights(unet: UNet2DModel) -> UNet2DModel:
    """The network with weights that 8 bits with a scale of fp16 do not hold, changed in place.

    Of the attention's output the same function, by powers of two; channels of one convolution that lie 24 octaves apart,
    one of them zero; one convolution of zeros, as untrained networks have them.
    """
    with torch.no_grad():
        for _, attention in attention_layers(unet):
            attention.to_v.weight.mul_(2.0**10)
            attention.to_v.bias.mul_(2.0**10)
            attention.to_out[0].weight.mul_(2.0**-10)
        spread = unet.up_blocks[0].resnets[0].conv2
        spread.weight[1:9] *= torch.logspace(-3, -24, 8, base=2).view(-1, 1, 1, 1)
        spread.weight[0] = 0
        unet.up_blocks[1].resnets[0].conv1.weight.zero_()
    return unet


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        timestep_spacing="trailing",
    )


def labels(count: int) -> Conditioning:
    return Conditioning({"class_labels": torch.arange(count) % 10}, {"class_labels": torch.full((count,), 10)})


def noise(count: int, seed: int = 1, channels: int = 1) -> Tensor:
    return torch.randn(count, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def conditioning_of(unet: UNet2DModel | UNet2DConditionModel, count: int) -> Conditioning:
    """Labels, nothing, or random text states of five tokens: what the network takes."""
    if isinstance(unet, UNet2DModel):
        return Conditioning({}, {}) if unet.class_embedding is None else labels(count)
    states = torch.randn(count, 5, unet.config.cross_attention_dim, generator=torch.Generator().manual_seed(2))
    return Conditioning({"encoder_hidden_states": states}, {"encoder_hidden_states": torch.zeros_like(states)})


def write_tiny_model(folder: Path, unet: nn.Module | None = None) -> Path:
    """A diffusers folder with ``tiny_unet`` (or another UNet) and a DDIM scheduler."""
    model: Any = tiny_unet() if unet is None else unet
    model.save_pretrained(folder / "unet")
    scheduler().save_pretrained(folder / "scheduler")
    (folder / "dq.toml").write_text("[conditioning]\nnull_label = 10\n" if unet is None else "")
    return folder
