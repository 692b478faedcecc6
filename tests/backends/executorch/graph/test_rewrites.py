"""The rewritten UNet is the same function as diffusers' own."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from torch import Tensor, nn

from dq_toolchain.backends.executorch.graph.rewrites import (
    DelegatedGroupNorm,
    DelegatedLayerNorm,
    DelegatedUpsample,
    rewrite,
)
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.quant.sites import weighted_layers
from dq_toolchain.toolchain.quant.split import split_concat_inputs
from tests.tiny import noise, tiny_condition_unet, tiny_unet


def _condition_unet(**options: object) -> nn.Module:
    torch.manual_seed(3)
    unet: nn.Module = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=8,
        cross_attention_dim=8,
        **{"attention_head_dim": 4, **options},
    )
    return unet.eval().requires_grad_(False)


def _sd_and_class() -> dict[str, tuple[nn.Module, Tensor, dict[str, Tensor]]]:
    text = {"encoder_hidden_states": torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(1))}
    split = tiny_unet()
    split_concat_inputs(split, {"up_blocks.0.resnets.0.conv_shortcut": (32, 32)})
    scale_shift = (
        UNet2DModel(
            sample_size=8,
            in_channels=1,
            out_channels=1,
            layers_per_block=1,
            block_out_channels=(16,),
            norm_num_groups=8,
            down_block_types=("DownBlock2D",),
            up_block_types=("UpBlock2D",),
            resnet_time_scale_shift="scale_shift",
            attention_head_dim=None,
            freq_shift=1,
            flip_sin_to_cos=False,
        )
        .eval()
        .requires_grad_(False)
    )
    return {
        "class": (tiny_unet(), noise(1), {"class_labels": torch.tensor([3])}),
        "split": (split, noise(1), {"class_labels": torch.tensor([3])}),
        "scale_shift": (scale_shift, noise(1), {}),
        "text": (tiny_condition_unet(), noise(1, channels=4), text),
        "text_linear_projection": (_condition_unet(use_linear_projection=True), noise(1, channels=4), text),
        "text_self_attention": (_condition_unet(only_cross_attention=False, act_fn="gelu"), noise(1, channels=4), text),
    }


@pytest.mark.parametrize("name", _sd_and_class())
@pytest.mark.parametrize("timestep", [0.0, 499.0, 999.0])
def test_rewritten_unet_is_the_same_function(name: str, timestep: float) -> None:
    unet, x, keywords = _sd_and_class()[name]
    time = torch.tensor([timestep])
    with torch.no_grad():
        expected = unet(x, time, **keywords, return_dict=False)[0]
        out = rewrite(copy.deepcopy(unet))(x, time, **keywords, return_dict=False)[0]
    assert float((out - expected).norm() / expected.norm()) < 1e-5


def test_layer_names_survive() -> None:
    unet, _, _ = _sd_and_class()["text"]
    assert [n for n, _ in weighted_layers(unet)] == [n for n, _ in weighted_layers(rewrite(copy.deepcopy(unet)))]


def test_norms_take_extreme_inputs() -> None:
    """Large offset and scale: the mean is subtracted before squaring, so nothing cancels."""
    x = torch.randn(2, 16, 4, 4) * 50 + 300
    group, layer = nn.GroupNorm(4, 16), nn.LayerNorm(16)
    for norm in (group, layer):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    torch.testing.assert_close(DelegatedGroupNorm(group)(x), group(x), rtol=1e-4, atol=1e-4)
    tokens = x.flatten(2).transpose(1, 2)
    torch.testing.assert_close(DelegatedGroupNorm(group)(x.flatten(2)), group(x.flatten(2)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(DelegatedLayerNorm(layer)(tokens), layer(tokens), rtol=1e-4, atol=1e-4)


def test_upsample_is_nearest_and_refuses_odd_sizes() -> None:
    x = torch.randn(1, 3, 4, 5)
    assert torch.equal(DelegatedUpsample(None)(x), torch.nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))
    with pytest.raises(BackendError, match="cannot be doubled"):
        DelegatedUpsample(None)(x, (7, 10))


def test_unknown_attention_parts_are_refused_by_name() -> None:
    unet = tiny_unet()
    unet.mid_block.attentions[0].norm_q = nn.LayerNorm(8)
    with pytest.raises(BackendError, match=r"mid_block\.attentions\.0: attention with norm_q"):
        rewrite(unet)
