"""Soft rounding: starts at the float weight, ends at floor or ceil, and commits integers of the kind's range."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dq_toolchain.calibrate.blocks.adaround import SoftRounding, penalty
from dq_toolchain.calibrate.network.fake_quant import ActivationQuantizer, QuantizedLayer, WeightQuantizer
from dq_toolchain.toolchain.quant.qparams import activation_type, fp16_exact, weight_type
from dq_toolchain.toolchain.simulation.network import StepGroupSwitch


def quantized_linear(bits: int = 4, learned_rounding: bool = True, scale: float = 0.03) -> QuantizedLayer:
    torch.manual_seed(0)
    layer = nn.Linear(16, 8)
    activation = ActivationQuantizer(torch.tensor([0.05]), torch.tensor([0]), activation_type(8), StepGroupSwitch())
    weight = WeightQuantizer(layer.weight, torch.full((8,), scale), weight_type(bits), learned_rounding)
    return QuantizedLayer(layer, activation, weight).requires_grad_(False)


def optimise(layer: QuantizedLayer, iterations: int) -> SoftRounding:
    x = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
    quantizer = layer.weight_quantizer
    target = layer.operation(x, quantizer.ratio * quantizer.log_scale.exp()[:, None], layer.bias)
    layer.activation.float_share = 1.0
    soft = SoftRounding(layer)
    adam = torch.optim.Adam([soft.v], lr=3e-2)
    for iteration in range(iterations):
        up = soft.apply()
        loss = (layer(x) - target).square().sum(1).mean() + penalty(up, iteration / iterations)
        adam.zero_grad()
        loss.backward()
        adam.step()
    return soft


def test_it_starts_at_the_float_weight_within_the_range() -> None:
    layer = quantized_linear()
    SoftRounding(layer).apply()
    assert layer.fixed_weight is not None
    quantizer = layer.weight_quantizer
    wanted = quantizer.ratio.clamp(-8, 7) * fp16_exact(quantizer.log_scale.exp())[:, None]
    torch.testing.assert_close(layer.fixed_weight, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("learned_rounding", [False, True])
def test_the_end_is_floor_or_ceil_and_commit_gives_exactly_these_integers(bits: int, learned_rounding: bool) -> None:
    layer = quantized_linear(bits, learned_rounding)
    quantizer, ratio = layer.weight_quantizer, layer.weight_quantizer.ratio.clone()
    soft = optimise(layer, 400)
    kind, integers = weight_type(bits), soft.integers()
    low, high = ratio.floor().clamp(kind.qmin, kind.qmax), ratio.ceil().clamp(kind.qmin, kind.qmax)
    assert bool(((integers == low) | (integers == high)).all())
    up = soft.up()
    assert float((up.round() - up).detach().abs().mean()) < 0.02
    soft.commit()
    assert layer.fixed_weight is None
    exported, scale = quantizer.export()
    torch.testing.assert_close(exported.float(), integers, rtol=0, atol=0)
    assert int(exported.min()) >= kind.qmin
    assert int(exported.max()) <= kind.qmax
    torch.testing.assert_close(quantizer(), integers * scale[:, None], rtol=0, atol=0)


def test_learned_rounding_has_a_smaller_output_error_than_nearest() -> None:
    layer = quantized_linear(scale=0.1)
    quantizer = layer.weight_quantizer
    x = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))[:, :1] * torch.ones(16)
    x = x + 0.2 * torch.randn(64, 16, generator=torch.Generator().manual_seed(2))
    target = layer.operation(x, quantizer.ratio * quantizer.log_scale.exp()[:, None], layer.bias)
    layer.activation.float_share = 1.0
    nearest = float((layer(x) - target).square().mean())
    soft = SoftRounding(layer)
    adam = torch.optim.Adam([soft.v], lr=3e-2)
    for iteration in range(300):
        loss = penalty(soft.apply(), iteration / 300) + (layer(x) - target).square().sum(1).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    soft.commit()
    assert float((layer(x) - target).square().mean()) < 0.7 * nearest


def test_the_penalty_starts_after_the_warm_up_and_vanishes_at_whole_choices() -> None:
    up = torch.tensor([0.0, 0.3, 0.5, 1.0])
    assert float(penalty(up, 0.1)) == 0.0
    assert float(penalty(up[[0, 3]], 0.5)) == 0.0
    assert float(penalty(up, 0.2)) > float(penalty(up, 0.99)) > 0.0
    assert float(penalty(up[2:3], 0.5)) == pytest.approx(0.01)
