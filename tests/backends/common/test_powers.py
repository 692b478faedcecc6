"""Scales that fp16 does not hold, as fp16 programs take them."""

from __future__ import annotations

import torch

from dq_toolchain.backends.common.powers import factored, product_of
from dq_toolchain.toolchain.quant.qparams import SMALLEST_SCALE, SMALLEST_WEIGHT_SCALE, fp16_exact


def test_scale_and_factors_are_fp16_numbers_and_their_product_is_exact() -> None:
    scale = fp16_exact(torch.logspace(-13, 4, 4001), SMALLEST_WEIGHT_SCALE)
    found = factored(scale)
    assert len(found.factors) == 2
    for number in (found.scale, *found.factors):
        assert torch.equal(number, fp16_exact(number))
        assert torch.equal(number, number.half().float())
    assert torch.equal(found.scale * product_of(found.factors), scale)
    assert torch.equal(found.growth * scale, found.scale)


def test_no_channel_is_made_larger_than_it_has_to_be() -> None:
    scale = fp16_exact(torch.tensor([1e-2, SMALLEST_SCALE, 1e-6, 1e-12]), SMALLEST_WEIGHT_SCALE)
    found = factored(scale)
    assert torch.equal(found.scale[:2], scale[:2])
    assert ((found.scale[2:] >= SMALLEST_SCALE) & (found.scale[2:] < 2 * SMALLEST_SCALE)).all()


def test_large_scales_have_no_factors() -> None:
    assert factored(torch.full((4,), SMALLEST_SCALE)).factors == ()
