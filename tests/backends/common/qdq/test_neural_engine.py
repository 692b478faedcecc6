"""The Neural Engine's layout is the same network."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from dq_toolchain.backends.common.qdq.neural_engine import ChannelsFirstNorm, as_convolution, to_channels_first
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.quant.sites import weighted_layers
from tests import tiny


@pytest.mark.parametrize("linear_projection", [False, True])
def test_cross_attention_unet_is_unchanged(linear_projection: bool) -> None:
    torch.manual_seed(0)
    config = dict(tiny.tiny_condition_unet().config) | {"use_linear_projection": linear_projection}
    unet = UNet2DConditionModel.from_config(config).eval().requires_grad_(False)
    _assert_same(unet, tiny.noise(1, channels=4), encoder_hidden_states=torch.randn(1, 5, 8))


def test_plain_attention_unet_is_unchanged() -> None:
    _assert_same(tiny.tiny_unet(), tiny.noise(1), class_labels=torch.tensor([3]))


def _assert_same(unet: nn.Module, sample: torch.Tensor, **conditioning: torch.Tensor) -> None:
    for module in unet.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, 0, 0.3)
    other = copy.deepcopy(unet)
    to_channels_first(other)
    wanted, got = (one(sample, torch.tensor([300.0]), **conditioning, return_dict=False)[0] for one in (unet, other))
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    assert {name for name, _ in weighted_layers(other)} == {name for name, _ in weighted_layers(unet)}
    assert sum(isinstance(layer, nn.Linear) for _, layer in weighted_layers(other)) < sum(
        isinstance(layer, nn.Linear) for _, layer in weighted_layers(unet)
    )


@pytest.mark.parametrize("size", [1e-3, 1.0, 3000.0])
def test_norm_equals_layer_norm_and_holds_in_fp16(size: float) -> None:
    norm = nn.LayerNorm(32)
    nn.init.normal_(norm.weight, 1, 0.3)
    x = torch.randn(2, 32, 1, 7, generator=torch.Generator().manual_seed(0)) * size
    wanted = norm(x.transpose(1, 3)).transpose(1, 3)
    ours = ChannelsFirstNorm(norm)
    torch.testing.assert_close(ours(x), wanted, rtol=1e-5, atol=1e-5)
    half = ChannelsFirstNorm(copy.deepcopy(norm).half())(x.half()).float()
    torch.testing.assert_close(half, wanted, rtol=0.02, atol=0.02)


def test_convolution_of_a_linear_layer_computes_the_same() -> None:
    linear, x = nn.Linear(6, 4), torch.randn(1, 6, 1, 5)
    torch.testing.assert_close(as_convolution(linear)(x), linear(x.transpose(1, 3)).transpose(1, 3))


def test_unknown_feed_forward_is_refused_by_name() -> None:
    unet = tiny.tiny_condition_unet()
    unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.ff").net[0] = nn.Identity()  # type: ignore[operator, union-attr, index]
    with pytest.raises(
        BackendError, match=r"mid_block\.attentions\.0.* feed-forward layer with Identity.*--layout plain"
    ):
        to_channels_first(unet)
