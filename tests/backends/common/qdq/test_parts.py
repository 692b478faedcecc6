"""Which parts are computed in fp16, by name of what is too large for it; forms that cannot overflow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dq_toolchain.backends.common.part_calls import part_beyond_fp16
from dq_toolchain.backends.common.qdq.part_range import Precision, precision_of
from dq_toolchain.backends.common.qdq.parts import ScaledRmsNorm
from dq_toolchain.calibrate.parts.quantize import quantized
from dq_toolchain.toolchain.parts.clip import ClipText
from dq_toolchain.toolchain.parts.part import Part
from dq_toolchain.toolchain.parts.t5 import RmsNorm
from tests.backends.changed_parts import smaller
from tests.tiny_parts import CLIP, calls_of, clip_part, decoder_part, encoder_part, lively, t5_part

FP16, FP32 = "int8 weights per channel, fp16 arithmetic", "int8 weights per channel, fp32 arithmetic"


def judged(part: Part, half: bool = True) -> Precision:
    return precision_of(part, calls_of(part), half)


@pytest.mark.parametrize("make", [clip_part, t5_part, decoder_part, encoder_part])
def test_small_numbers_stay_in_fp16_where_it_is_asked_for(make: Callable[[], Part]) -> None:
    part = make()
    assert judged(part) == Precision(True, FP16)
    assert judged(part, half=False) == Precision(False, FP32)


def test_weights_and_what_calibration_saw_decide() -> None:
    part, layer = clip_part(), "encoder.layers.1.mlp.fc1"
    assert judged(smaller(part, layer, 2.0**20)).words.startswith(f"{FP32}: {layer}.weight reaches ")
    seen = {**part.ranges, layer: torch.tensor([-1.0, 1.0, -40_000.0, 3.0])}
    assert judged(replace(part, ranges=seen)) == Precision(
        False, f"{FP32}: {layer} reaches 4e+04, fp16 holds at most 65504"
    )
    lost = {**part.ranges, layer: torch.tensor([-1.0, 1.0, torch.nan, 3.0])}
    assert not judged(replace(part, ranges=lost)).half


def test_numbers_of_tokens_decide_nothing() -> None:
    """CLIP's last tokens are beyond half of what fp16 holds; they are looked up."""
    config = {**CLIP, "vocab_size": 49408}
    options: dict[str, Any] = {"skip": 0, "pooled": False}
    ids = {"ids": torch.tensor([[49406, 320, 49407, 49407, 49407, 49407, 49407, 49407]])}
    part = quantized(
        "text_encoder", "clip", config, options, lively(ClipText(config, **options)), [ids, ids], ("hidden",)
    )
    assert precision_of(part, [ids], True) == Precision(True, FP16)
    assert part_beyond_fp16(part, ids) == {}


def test_what_comes_up_between_layers_decides() -> None:
    """Two sums of 20,000: no layer gives more, and the calibration saw nothing."""
    part = clip_part(pooled=False)
    floats: dict[str, Tensor] = dict(part.float_parameters)
    for name in ("encoder.layers.0.mlp.fc2.bias", "encoder.layers.1.mlp.fc2.bias"):
        floats[name] = torch.full_like(floats[name], 20_000.0)
    found = judged(replace(part, float_parameters=floats))
    assert not found.half
    assert found.words.startswith(f"{FP32}: encoder.layers.1 reaches 4e+04")


def test_products_in_front_of_their_factors_decide() -> None:
    """Weights below fp16 are larger in the program, and so is what they give before it is multiplied back."""
    part, layer = smaller(clip_part(pooled=False), "encoder.layers.0.mlp.fc1", 2.0**-18), "encoder.layers.0.layer_norm2"
    floats = {
        **part.float_parameters,
        f"{layer}.weight": torch.full_like(part.float_parameters[f"{layer}.weight"], 2e4),
    }
    found = judged(replace(part, float_parameters=floats))
    assert not found.half


@pytest.mark.parametrize("size", [1e-4, 1.0, 3000.0])
def test_the_norm_of_t5_holds_in_fp16(size: float) -> None:
    torch.manual_seed(0)
    norm, x = RmsNorm(64, 1e-6), torch.randn(1, 5, 64) * size
    nn.init.normal_(norm.weight)
    norm.requires_grad_(False)
    torch.testing.assert_close(ScaledRmsNorm(norm)(x), norm(x), rtol=1e-5, atol=1e-6)
    half = ScaledRmsNorm(norm).half()(x.half()).float()
    torch.testing.assert_close(half, norm(x), rtol=5e-2 if size < 1 else 5e-3, atol=5e-3)
