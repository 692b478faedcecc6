"""The three pure operations: what rounding may cost, what must be exact."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dq_toolchain.toolchain.quant.qparams import (
    FP16_LARGEST,
    SMALLEST_SCALE,
    SMALLEST_WEIGHT_SCALE,
    IntegerType,
    Scheme,
    activation_type,
    fake_quantize,
    fp16_exact,
    qparams_to_range,
    quantize,
    range_to_qparams,
    weight_type,
)

SCHEMES: tuple[Scheme, ...] = ("symmetric", "affine")
kinds = st.integers(2, 8).flatmap(lambda bits: st.sampled_from([activation_type(bits), weight_type(bits)]))
ends = st.floats(-1e4, 1e4, width=32)
few = settings(max_examples=60, deadline=None)


def ordered(first: float, second: float) -> tuple[torch.Tensor, torch.Tensor]:
    low, high = sorted((first, second))
    return torch.tensor(low), torch.tensor(high)


@few
@given(kind=kinds, scheme=st.sampled_from(SCHEMES), first=ends, second=ends)
def test_round_trip_is_within_half_a_scale_inside_the_range(
    kind: IntegerType, scheme: Scheme, first: float, second: float
) -> None:
    scale, zero_point = range_to_qparams(*ordered(first, second), kind, scheme)
    low, high = qparams_to_range(scale, zero_point, kind)
    x = torch.linspace(float(low), float(high), 257)
    error = (fake_quantize(x, scale, zero_point, kind) - x).abs().max()
    assert error <= scale / 2 * (1 + 1e-4)


@few
@given(kind=kinds, scheme=st.sampled_from(SCHEMES), first=ends, second=ends)
def test_zero_is_exact_and_parameters_are_legal(kind: IntegerType, scheme: Scheme, first: float, second: float) -> None:
    scale, zero_point = range_to_qparams(*ordered(first, second), kind, scheme)
    assert fake_quantize(torch.tensor(0.0), scale, zero_point, kind) == 0
    assert kind.qmin <= zero_point <= kind.qmax
    assert zero_point.dtype == torch.int32
    assert scheme == "affine" or zero_point == 0
    assert scale == scale.half().float()
    assert scale >= SMALLEST_SCALE


@few
@given(kind=kinds, scheme=st.sampled_from(SCHEMES), first=ends, second=ends)
def test_the_range_asked_for_is_covered_up_to_rounding(
    kind: IntegerType, scheme: Scheme, first: float, second: float
) -> None:
    low, high = ordered(first, second)
    scale, zero_point = range_to_qparams(low, high, kind, scheme)
    error = (fake_quantize(torch.stack([low, high]), scale, zero_point, kind) - torch.stack([low, high])).abs().max()
    fp16_step = 2.0**-11 * (kind.qmax - kind.qmin)  # how far an fp16 scale may miss the end, in units of the scale
    assert error <= scale * (1 + fp16_step + 1e-4)


def test_quantize_rounds_ties_to_even_and_saturates() -> None:
    kind = activation_type(8)
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, 1e9, -1e9])
    assert quantize(x, torch.tensor(1.0), 0, kind).tolist() == [0, 2, 2, 0, 127, -128]
    assert quantize(x, torch.tensor(1.0), 100, kind).tolist() == [100, 102, 102, 100, 127, -128]


def test_the_ends_of_the_float_range_are_the_integer_ends() -> None:
    kind = activation_type(8)
    scale, zero_point = torch.tensor([0.25, 0.5]), torch.tensor([-100, 0])
    low, high = qparams_to_range(scale, zero_point, kind)
    assert quantize(low, scale, zero_point, kind).tolist() == [kind.qmin] * 2
    assert quantize(high, scale, zero_point, kind).tolist() == [kind.qmax] * 2


@pytest.mark.parametrize(
    ("bits", "activation", "weight"),
    [
        (16, (-32768, 32767), None),
        (8, (-128, 127), (-127, 127)),
        (4, (-8, 7), (-8, 7)),
        (2, (-2, 1), (-2, 1)),
    ],
)
def test_integer_ranges(bits: int, activation: tuple[int, int], weight: tuple[int, int] | None) -> None:
    assert (activation_type(bits).qmin, activation_type(bits).qmax) == activation
    assert activation_type(bits).is_wide == (bits > 8)
    assert weight is None or (weight_type(bits).qmin, weight_type(bits).qmax) == weight


def test_scales_of_16_bits_are_normal_fp16_numbers_and_no_coarser_than_those_of_8() -> None:
    """Below a range of 2 the smallest normal number is the scale: fewer bits are left, yet never fewer than 8 bits give."""
    ends = torch.logspace(-6, 6, 2001)  # at the upper one scales are 30, far from fp16's end
    scale, zero_point = range_to_qparams(-ends, ends, activation_type(16), "symmetric")
    assert torch.equal(scale, scale.clamp(SMALLEST_SCALE, FP16_LARGEST).half().float())
    assert not zero_point.any()
    assert (scale == SMALLEST_SCALE)[ends < 2].all()
    assert (scale > SMALLEST_SCALE)[ends > 2.01].all()
    eight, _ = range_to_qparams(-ends, ends, activation_type(8), "symmetric")
    assert (scale <= eight).all()
    lost = (fake_quantize(ends, scale, 0, activation_type(16)) - ends).abs()
    assert (lost <= scale / 2 + ends * 2.0**-11).all()  # an fp16 scale misses the end by half of its last bit


def test_fp16_exact_is_idempotent_and_never_subnormal() -> None:
    scales = torch.tensor([0.0, 1e-9, 1e-3, 0.1, 1 / 3, 1000.3])
    once = fp16_exact(scales)
    assert torch.equal(fp16_exact(once), once)
    assert torch.equal(once, once.half().float())
    assert once.min() == SMALLEST_SCALE
    assert ((once - scales).abs() <= scales * 2.0**-11)[2:].all()


def test_fp16_exact_is_fp16s_own_rounding_where_fp16_reaches_and_keeps_its_bits_below() -> None:
    ties = (torch.arange(1024, 2048) + 0.5) / 2048
    scales = torch.cat([torch.logspace(-4.2, 4.8, 20001), ties])
    assert torch.equal(fp16_exact(scales), scales.half().float())
    for power in (2.0**-20, 2.0**10):
        assert torch.equal(fp16_exact(ties * power, SMALLEST_WEIGHT_SCALE), fp16_exact(ties) * power)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_zeros_take_a_scale_that_every_target_holds(scheme: Scheme) -> None:
    zero = torch.zeros(3)
    scale, zero_point = range_to_qparams(zero, zero, activation_type(8), scheme, SMALLEST_WEIGHT_SCALE)
    assert (scale == SMALLEST_SCALE).all()
    assert (fake_quantize(zero, scale, zero_point, activation_type(8)) == 0).all()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_range_without_zero_is_widened_to_it(scheme: Scheme) -> None:
    scale, zero_point = range_to_qparams(
        torch.tensor([2.0, -3.0]), torch.tensor([3.0, -2.0]), activation_type(8), scheme
    )
    low, high = qparams_to_range(scale, zero_point, activation_type(8))
    assert (low <= 0).all()
    assert (high >= 0).all()
