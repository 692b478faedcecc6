"""The rewritten UNet is the same function as diffusers' own."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import SD3Transformer2DModel, UNet2DConditionModel, UNet2DModel
from diffusers.models.attention_processor import LuminaAttnProcessor2_0
from diffusers.models.normalization import RMSNorm
from torch import Tensor, nn

from dq_toolchain.backends.executorch.graph.rewrites import (
    DelegatedGroupNorm,
    DelegatedLayerNorm,
    DelegatedUpsample,
    rewrite,
)
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.models.architectures import call_network, fix_positions, inputs_of, latent_shape
from dq_toolchain.toolchain.quant.sites import weighted_layers
from dq_toolchain.toolchain.quant.split import split_concat_inputs
from tests.tiny import noise, tiny_condition_unet, tiny_unet
from tests.tiny_chat import qwen_image, z_image
from tests.tiny_pipelines import WIDTH, dit, flux, flux2, pixart, sana, sd3
from tests.toolchain.models.test_architectures import config_of, rows_of


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


def _transformers() -> dict[str, nn.Module]:
    torch.manual_seed(4)
    sd35 = SD3Transformer2DModel.from_config({**sd3().config, "dual_attention_layers": (0,), "qk_norm": "rms_norm"})
    made: dict[str, nn.Module] = {
        "dit": dit(),
        "pixart": pixart(),
        "sd3": sd3(),
        "sd35": sd35,
        "sana": sana(),
        "sana, norms": sana(qk_norm="rms_norm_across_heads"),
        "flux": flux(guidance_embeds=True),
        "flux2": flux2(),
        "z_image": z_image(),
        "qwen_image": qwen_image(),
    }
    for network in made.values():
        network.eval().requires_grad_(False)
        for module in network.modules():  # no norm is the identity
            if isinstance(module, nn.RMSNorm | RMSNorm) and module.weight is not None:
                nn.init.uniform_(module.weight, 0.5, 1.5)
    return made


@pytest.mark.parametrize("name", _transformers())
def test_rewritten_transformer_is_the_same_function(name: str) -> None:
    network = _transformers()[name]
    config = config_of(network)
    keywords = rows_of(inputs_of(config), 1)
    if "encoder_attention_mask" in keywords:
        keywords["encoder_attention_mask"] = torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0]])
    x = torch.randn(1, *latent_shape(config), generator=torch.Generator().manual_seed(1))
    time = torch.tensor([499.0])
    with torch.no_grad():
        expected = call_network(network, x, time, keywords)
        new = rewrite(copy.deepcopy(network))
        fix_positions(new, x, keywords)
        out = call_network(new, x, time, keywords)
    assert float((out - expected).norm() / expected.norm()) < 1e-5
    assert [n for n, _ in weighted_layers(network)] == [n for n, _ in weighted_layers(new)]


@torch.no_grad()
def test_captions_of_two_multiples_in_one_batch() -> None:
    """Z-Image's picture begins behind each caption's own multiple of 32 tokens."""
    network = _transformers()["z_image"]
    mask = (torch.arange(40) < torch.tensor([[5], [40]])).float()
    keywords = {"encoder_hidden_states": torch.randn(2, 40, WIDTH), "encoder_attention_mask": mask}
    x, time = torch.randn(2, 4, 8, 8), torch.tensor([499.0, 499.0])
    expected = call_network(network, x, time, keywords)
    new = rewrite(copy.deepcopy(network))
    fix_positions(new, x, keywords)
    torch.testing.assert_close(call_network(new, x, time, keywords), expected, rtol=1e-4, atol=1e-5)
    for row, own in enumerate((5, 40)):
        alone = {"encoder_hidden_states": keywords["encoder_hidden_states"][row : row + 1, :own]}
        out = call_network(network, x[row : row + 1], time[:1], alone)
        torch.testing.assert_close(out, expected[row : row + 1], rtol=1e-4, atol=1e-5)


def test_a_mask_of_tokens_counts() -> None:
    """A target that leaves it out is wrong wherever a prompt is shorter than the longest."""
    network = _transformers()["pixart"]
    x, states = torch.randn(1, 4, 8, 8), torch.randn(1, 5, WIDTH)
    masks = torch.ones(1, 5), torch.tensor([[1.0, 1.0, 0.0, 0.0, 0.0]])
    new = rewrite(copy.deepcopy(network))
    whole, short = (
        call_network(new, x, torch.tensor([5.0]), {"encoder_hidden_states": states, "encoder_attention_mask": mask})
        for mask in masks
    )
    assert float((whole - short).norm() / whole.norm()) > 1e-3


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


def test_attention_of_another_kind_is_refused_by_name() -> None:
    unet = tiny_unet()
    unet.mid_block.attentions[0].set_processor(LuminaAttnProcessor2_0())
    with pytest.raises(
        BackendError, match=r"mid_block\.attentions\.0: attention by LuminaAttnProcessor2_0 is not computed"
    ):
        rewrite(unet)


def test_unknown_attention_parts_are_refused_by_name() -> None:
    unet = tiny_unet()
    unet.mid_block.attentions[0].norm_q = nn.LayerNorm(8)
    with pytest.raises(BackendError, match=r"mid_block\.attentions\.0: attention with norm_q"):
        rewrite(unet)
