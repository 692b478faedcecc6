"""RMS norms in fp16: the same function, where squares are beyond fp16 too."""

from __future__ import annotations

import pytest
import torch

from dq_toolchain.backends.common.norms import ScaledRmsNorm, scale_norms
from dq_toolchain.toolchain.parts.t5 import RmsNorm, T5Text
from tests.tiny_parts import LENGTH, T5

ROWS = torch.randn(1, 5, 64, generator=torch.Generator().manual_seed(0))


def norm() -> RmsNorm:
    made = RmsNorm(64, 1e-6)
    made.weight.data = torch.linspace(0.5, 2.0, 64)
    return made.requires_grad_(False)


@pytest.mark.parametrize("size", [0.0, 1e-5, 1e-2, 1.0, 3e3])
def test_it_is_the_same_function_in_float32_and_in_fp16(size: float) -> None:
    x, plain = ROWS * size, norm()
    want = plain(x)
    assert torch.allclose(ScaledRmsNorm(plain)(x), want, rtol=1e-5, atol=1e-6)
    half = ScaledRmsNorm(norm().half())(x.half())
    # what fp16 holds of numbers this small is coarse; of larger ones it has 11 bits
    assert torch.allclose(half.float(), want, rtol=0.01, atol=0.02)


def test_without_it_large_states_become_zero() -> None:
    x = (ROWS * 3e3).half()
    assert not norm().half()(x).any()
    assert ScaledRmsNorm(norm().half())(x).abs().min() > 0


def test_every_norm_of_an_encoder_is_replaced() -> None:
    module = scale_norms(T5Text(T5, LENGTH, True))
    assert not [each for each in module.modules() if isinstance(each, RmsNorm)]
    assert len([each for each in module.modules() if isinstance(each, ScaledRmsNorm)]) == 5
