"""Splitting a convolution at a concatenation changes nothing in float, and the places are found by running."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dq_toolchain.toolchain.quant.sites import weighted_layers
from dq_toolchain.toolchain.quant.split import SplitConv2d, find_concat_inputs, split_concat_inputs
from tests.tiny import noise, tiny_condition_unet, tiny_unet

TIME = torch.tensor([700.0, 20.0])


def class_conditional(unet: nn.Module) -> Tensor:
    out: Tensor = unet(noise(2), TIME, class_labels=torch.tensor([3, 10])).sample
    return out


def text_conditional(unet: nn.Module) -> Tensor:
    states = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(4))
    out: Tensor = unet(noise(2, channels=4), TIME, encoder_hidden_states=states).sample
    return out


UNETS = [
    pytest.param(tiny_unet, class_conditional, id="UNet2DModel"),
    pytest.param(tiny_condition_unet, text_conditional, id="UNet2DConditionModel"),
]


@pytest.mark.parametrize(("build", "call"), UNETS)
@torch.no_grad()
def test_split_unet_is_the_same_function(build: Callable[[], nn.Module], call: Callable[[nn.Module], Tensor]) -> None:
    whole = build()
    divided = copy.deepcopy(whole)
    splits = find_concat_inputs(divided, lambda: call(divided))
    concatenated = {
        name: layer for name, layer in weighted_layers(whole) if "up_blocks" in name and name.endswith("conv_shortcut")
    }
    assert set(splits) == set(concatenated)
    assert all(len(sizes) == 2 and sum(sizes) == concatenated[name].in_channels for name, sizes in splits.items())
    split_concat_inputs(divided, splits)
    torch.testing.assert_close(call(divided), call(whole), rtol=1e-5, atol=1e-5)
    assert not any(isinstance(m, SplitConv2d) for m in whole.modules())


@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_parts_keep_stride_padding_and_one_bias(bias: bool) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(7, 5, 3, stride=2, padding=(1, 0), dilation=2, bias=bias)
    split = SplitConv2d(conv, (3, 2, 2))
    x = torch.randn(2, 7, 11, 11)
    torch.testing.assert_close(split(x), conv(x), rtol=1e-5, atol=1e-5)
    assert [part.bias is not None for part in split.parts] == [bias, False, False]


def test_a_sum_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot split 4 channels"):
        SplitConv2d(nn.Conv2d(4, 4, 1), (3, 2))
    with pytest.raises(ValueError, match="2 groups"):
        SplitConv2d(nn.Conv2d(4, 4, 1, groups=2), (2, 2))


def test_a_batch_concatenation_is_no_split() -> None:
    conv, x = nn.Conv2d(2, 2, 1), torch.randn(1, 2, 4, 4)
    assert find_concat_inputs(nn.Sequential(conv), lambda: conv(torch.cat([x, x]))) == {}
    assert find_concat_inputs(nn.Sequential(conv), lambda: conv(torch.cat([x[:, :1], x[:, 1:]], dim=1))) == {
        "0": (1, 1)
    }
