"""The two-product attention is diffusers' own attention, and hands its operands over one by one."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.quant.attention import ProductAttnProcessor, float_product
from dq_toolchain.toolchain.quant.sites import attention_layers
from tests.toolchain.quant.test_split import UNETS


@pytest.mark.parametrize(("build", "call"), UNETS)
@torch.no_grad()
def test_equals_the_default_processor(build: Callable[[], nn.Module], call: Callable[[nn.Module], Tensor]) -> None:
    unet = build()
    ours = copy.deepcopy(unet)
    seen: list[str] = []

    def product(attention: Attention, which: str, left: Tensor, right: Tensor) -> Tensor:
        seen.append(which)
        return float_product(attention, which, left, right)

    for _, attention in attention_layers(ours):
        attention.set_processor(ProductAttnProcessor(product))
    torch.testing.assert_close(call(ours), call(unet), rtol=1e-5, atol=1e-5)
    assert seen == ["scores", "values"] * len(list(attention_layers(ours)))
    assert seen


@torch.no_grad()
def test_options_of_an_attention_block_are_kept() -> None:
    torch.manual_seed(0)
    attention = Attention(
        16,
        heads=2,
        dim_head=8,
        norm_num_groups=4,
        residual_connection=True,
        rescale_output_factor=1.5,
        bias=True,
        upcast_softmax=True,
    ).eval()
    x = torch.randn(2, 16, 4, 4)
    expected = attention(x)
    attention.set_processor(ProductAttnProcessor())
    torch.testing.assert_close(attention(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{"added_kv_proj_dim": 8}, {"qk_norm": "layer_norm"}])
def test_what_it_does_not_compute_is_refused(options: dict[str, object]) -> None:
    attention = Attention(16, heads=2, dim_head=8, **options)
    with pytest.raises(ModelError, match='attention = "float"'):
        ProductAttnProcessor()(attention, torch.randn(1, 3, 16))
    with pytest.raises(ModelError, match='attention = "float"'):
        ProductAttnProcessor()(
            Attention(16, heads=2, dim_head=8), torch.randn(1, 3, 16), attention_mask=torch.zeros(1, 3)
        )
