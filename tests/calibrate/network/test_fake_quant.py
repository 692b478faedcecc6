"""Trainable quantizers: what they compute is what the integers give, and rounding stays between floor and ceil."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dq_toolchain.calibrate.network.fake_quant import (
    ActivationQuantizer,
    QuantizedLayer,
    WeightQuantizer,
    clamp_offsets,
)
from dq_toolchain.calibrate.ranges.observer import choose_weight_scale
from dq_toolchain.toolchain.quant.qparams import activation_type, fake_quantize, fp16_exact, weight_type
from dq_toolchain.toolchain.simulation.network import ActivationTable, SimulatedLayer, StepGroupSwitch

KIND = activation_type(8)


def test_activation_equals_the_pure_function_in_every_step_group() -> None:
    switch = StepGroupSwitch()
    scale, zero_point = fp16_exact(torch.tensor([0.02, 0.05])), torch.tensor([0, -17], dtype=torch.int32)
    quantizer = ActivationQuantizer(scale, zero_point, KIND, switch)
    x = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 2
    for step_group in (0, 1):
        switch.current = step_group
        expected = fake_quantize(x, scale[step_group], int(zero_point[step_group]), KIND)
        difference = (quantizer(x) - expected).abs()
        assert (difference > 1e-6).float().mean() < 1e-3  # x/scale and x*(1/scale) may part at exact ties only
        assert difference.max() <= scale[step_group] * 1.001


def test_scale_gradient_equals_lsq() -> None:
    quantizer = ActivationQuantizer(
        fp16_exact(torch.tensor([0.03])), torch.zeros(1, dtype=torch.int32), KIND, StepGroupSwitch()
    )
    x = torch.linspace(-6, 6, 401)
    quantizer(x).sum().backward()
    scale = float(fp16_exact(quantizer.log_scale.detach().exp()))
    ratio = x / scale
    inside = (torch.round(ratio) >= KIND.qmin) & (torch.round(ratio) <= KIND.qmax)
    lsq = torch.where(inside, torch.round(ratio) - ratio, ratio.sign() * torch.where(ratio < 0, -KIND.qmin, KIND.qmax))
    assert float(quantizer.log_scale.grad) == pytest.approx(float(lsq.sum()) * scale, rel=1e-3)  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [8, 16])
def test_scale_gradient_is_exact_where_integers_are_many(bits: int) -> None:
    """At 16 bits x and its rounded value agree in nearly all of their bits: what is summed must be the difference."""
    kind, generator = activation_type(bits), torch.Generator().manual_seed(4)
    scale, x = fp16_exact(torch.tensor([2.5 / kind.qmax])), torch.randn(2**20, generator=generator)
    quantizer = ActivationQuantizer(scale, torch.zeros(1, dtype=torch.int32), kind, StepGroupSwitch())
    sent = torch.randn(x.shape, generator=generator)
    quantizer(x).backward(sent)
    raw, s = float(quantizer.log_scale.detach().exp()), float(fp16_exact(quantizer.log_scale.detach().exp()))
    ratio = x.double() / s
    rounded = quantizer(x).detach().double() / s
    inside = (ratio > kind.qmin - 0.5) & (ratio < kind.qmax + 0.5)
    terms = sent.double() * torch.where(inside, rounded - ratio, rounded) * raw
    assert quantizer.log_scale.grad is not None
    assert abs(float(quantizer.log_scale.grad) - float(terms.sum())) < 1e-3 * float(terms.norm())


@pytest.mark.parametrize("learned", [True, False])
def test_a_layer_of_16_bits_computes_what_the_simulation_does(learned: bool) -> None:
    """With its weight fixed and without gradient, where activations of 8 bits go through products of bytes."""
    torch.manual_seed(0)
    layer, kind, scale = nn.Conv2d(6, 5, 3, padding=1), activation_type(16), fp16_exact(torch.tensor([3e-4]))
    weight = WeightQuantizer(layer.weight, torch.full((5,), 2.0**-9), weight_type(8), learned)
    fitted = QuantizedLayer(layer, ActivationQuantizer(scale, torch.tensor([0]), kind, StepGroupSwitch()), weight)
    fitted.fix_weight(weight().detach(), rounded=True)
    table = ActivationTable("x", scale, torch.tensor([0]), kind, StepGroupSwitch())
    simulated = SimulatedLayer(layer, *weight.export(), table, "integer")
    x = torch.randn(2, 6, 8, 8) * 5
    with torch.no_grad():
        y, wanted = fitted(x), simulated(x)
    assert (y - wanted).norm() < 1e-5 * wanted.norm()
    assert (fitted(x.requires_grad_()) - wanted).norm() < 1e-5 * wanted.norm()


@pytest.mark.parametrize("bits", [8, 16])
def test_a_quantized_output_has_integers_for_values_and_a_gradient(bits: int) -> None:
    torch.manual_seed(0)
    layer, kind, switch = nn.Linear(6, 5), activation_type(bits), StepGroupSwitch()
    scale, zero = fp16_exact(torch.tensor([2.0 / kind.qmax])), torch.zeros(1, dtype=torch.int32)
    weight = WeightQuantizer(layer.weight, torch.full((5,), 2.0**-9), weight_type(8), learned_rounding=True)
    quantized = QuantizedLayer(layer, ActivationQuantizer(scale, zero, kind, switch), weight)
    x = torch.randn(7, 6)
    before = quantized(x).detach()
    quantized.output = ActivationQuantizer(scale, zero, kind, switch)
    outs = [quantized(x)]
    outs[0].square().sum().backward()
    quantized.fix_weight(weight().detach(), rounded=True)
    with torch.no_grad():
        outs.append(quantized(x))  # through products of bytes, where there are some
    for y in outs:
        integers = y.detach() / scale
        assert torch.allclose(integers, integers.round(), atol=2e-3, rtol=0)
        assert ((y.detach() - before.clamp(-2, 2)).abs() <= scale * 1.01).all()
    learned = [quantized.output.log_scale, quantized.activation.log_scale, weight.offset, quantized.bias]
    assert all(each is not None and each.grad is not None and bool(each.grad.any()) for each in learned)


@pytest.mark.parametrize("bits", [4, 8])
def test_learned_rounding_stays_between_floor_and_ceil(bits: int) -> None:
    kind = weight_type(bits)
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    quantizer = WeightQuantizer(weight, choose_weight_scale(weight, kind), kind, learned_rounding=True)
    assert quantizer.offset is not None
    nearest, scale = quantizer.export()
    with torch.no_grad():
        quantizer.offset.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)) * 3)
    clamp_offsets([quantizer])
    moved, _ = quantizer.export()
    ratio = (weight / scale.view(-1, 1, 1, 1)).clamp(kind.qmin, kind.qmax)
    assert (moved >= torch.floor(ratio)).all()
    assert (moved <= torch.ceil(ratio)).all()
    assert not torch.equal(moved, nearest)


def test_export_is_what_the_forward_pass_computed() -> None:
    layer = nn.Conv2d(4, 6, 3)
    kind = weight_type(4)
    quantizer = WeightQuantizer(layer.weight, choose_weight_scale(layer.weight, kind), kind, learned_rounding=True)
    with torch.no_grad():
        quantizer.log_scale.add_(0.013)
    integers, scale = quantizer.export()
    assert torch.equal(scale, fp16_exact(scale))
    torch.testing.assert_close(quantizer(), integers * scale.view(-1, 1, 1, 1), rtol=0, atol=1e-6)


def test_a_fixed_weight_gives_the_same_output() -> None:
    layer = nn.Linear(8, 4)
    kind = weight_type(8)
    quantized = QuantizedLayer(
        layer,
        ActivationQuantizer(torch.tensor([0.02]), torch.zeros(1), KIND, StepGroupSwitch()),
        WeightQuantizer(layer.weight, choose_weight_scale(layer.weight, kind), kind, True),
    )
    x = torch.randn(3, 8)
    live = quantized(x)
    quantized.fix_weight(quantized.weight_quantizer().detach(), rounded=False)
    assert torch.equal(quantized(x), live)
    assert live.requires_grad


def test_integers_stay_while_the_scale_is_learned() -> None:
    weight = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    quantizer = WeightQuantizer(weight, choose_weight_scale(weight, weight_type(4)), weight_type(4), True)
    integers, scale = quantizer.export()
    with torch.no_grad():
        quantizer.log_scale.add_(0.3)
    moved, larger = quantizer.export()
    assert torch.equal(moved, integers)
    assert (larger > scale).all()
    out = quantizer()
    torch.testing.assert_close(out, integers * larger.view(-1, 1, 1, 1))
    out.sum().backward()  # d(integers * scale) / d(log scale) is the weight itself
    torch.testing.assert_close(quantizer.log_scale.grad, out.detach().flatten(1).sum(1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("learned_rounding", [True, False])
def test_the_weight_is_straight_through_inside_the_range(learned_rounding: bool) -> None:
    kind = weight_type(4)
    weight = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    quantizer = WeightQuantizer(weight, torch.full((6,), fp16_exact(torch.tensor(0.1)).item()), kind, learned_rounding)
    sent = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    quantizer().backward(sent)
    integers, scale = quantizer.export()
    inside = (quantizer.ratio >= kind.qmin) & (quantizer.ratio <= kind.qmax)
    assert 0 < int(inside.sum()) < inside.numel()
    of_log_scale = (sent * integers).flatten(1).sum(1) * scale
    torch.testing.assert_close(quantizer.log_scale.grad, of_log_scale, rtol=1e-3, atol=1e-4)
    if quantizer.offset is not None:
        torch.testing.assert_close(quantizer.offset.grad, torch.where(inside, sent * scale.view(-1, 1, 1, 1), 0.0))


def test_a_pass_without_gradient_gives_the_same_output_in_integers() -> None:
    layer, kind = nn.Conv2d(8, 6, 3, padding=1), weight_type(8)
    quantized = QuantizedLayer(
        layer,
        ActivationQuantizer(torch.tensor([0.02, 0.06]), torch.tensor([3, -5]), KIND, StepGroupSwitch()),
        WeightQuantizer(layer.weight, choose_weight_scale(layer.weight, kind), kind, True),
    )
    x = torch.randn(2, 8, 5, 5, generator=torch.Generator().manual_seed(0)) * 3
    for group in (0, 1):
        quantized.activation.switch.current = group
        live = quantized(x)
        quantized.fix_weight(quantized.weight_quantizer(), rounded=True)
        with torch.no_grad():
            torch.testing.assert_close(quantized(x), live, rtol=1e-5, atol=1e-5)
        assert quantized(x).requires_grad
        quantized.fix_weight(None, rounded=False)
