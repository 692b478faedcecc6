"""Streaming ranges: the histogram is independent of how the data was cut, and the search never loses to min-max."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dq_toolchain.calibrate.ranges import observer
from dq_toolchain.calibrate.ranges.observer import (
    BINS,
    NORM,
    Histogram,
    RangeMethod,
    bin_counts,
    choose_qparams,
    choose_weight_scale,
)
from dq_toolchain.toolchain.errors import CalibrationError
from dq_toolchain.toolchain.quant.qparams import (
    SMALLEST_SCALE,
    Scheme,
    activation_type,
    fake_quantize,
    fp16_exact,
    weight_type,
)

KIND = activation_type(8)


def heavy_tailed(seed: int = 0, count: int = 20000) -> Tensor:
    x = torch.randn(count, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.silu(x * 2) + 0.02 * x**3


def collected(*pieces: Tensor) -> Histogram:
    histogram = Histogram()
    for piece in pieces:
        histogram.collect(piece, "site")
    return histogram


def test_counts_do_not_depend_on_the_order_of_batches() -> None:
    x = heavy_tailed()
    forwards, backwards = collected(*x.split(1000)), collected(*reversed(x.split(1000)))
    assert forwards.span == backwards.span
    assert (forwards.low, forwards.high) == (float(x.min()), float(x.max()))
    torch.testing.assert_close(forwards.counts.sum(), torch.tensor(float(len(x)), dtype=torch.float64))
    assert (forwards.counts - backwards.counts).abs().sum() <= 2e-3 * len(x)


def test_memory_does_not_grow_with_the_data() -> None:
    few, many = collected(heavy_tailed(count=100)), collected(*(heavy_tailed(seed) for seed in range(20)))
    assert few.counts.shape == many.counts.shape


@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
@pytest.mark.parametrize("method", ["mse", "minmax", "percentile"])
@pytest.mark.parametrize("value", [1e-36, 1e-40])
def test_values_next_to_nothing_have_the_smallest_scale(value: float, method: RangeMethod, scheme: Scheme) -> None:
    histogram = collected(torch.tensor([value, -value, 0.0]))
    assert (histogram.span, int(histogram.counts.sum())) == (0.0, 3)
    assert histogram.high == pytest.approx(value)
    scale, zero_point = choose_qparams(histogram, KIND, scheme, method, 99.9)
    assert scale == SMALLEST_SCALE
    assert KIND.qmin <= zero_point <= KIND.qmax


@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
def test_the_search_is_never_worse_than_min_max(scheme: Scheme) -> None:
    x = heavy_tailed()
    errors = {}
    for method in ("mse", "minmax"):
        scale, zero_point = choose_qparams(collected(x), KIND, scheme, method, 99.99)  # type: ignore[arg-type]
        assert torch.equal(scale, fp16_exact(scale))
        errors[method] = float((fake_quantize(x, scale, zero_point, KIND) - x).abs().pow(NORM).mean())
    assert errors["mse"] <= errors["minmax"] * 1.01
    if scheme == "symmetric":
        assert errors["mse"] < errors["minmax"]


def test_percentile_cuts_the_tails_only() -> None:
    x = torch.cat([torch.linspace(-1, 1, 10001), torch.tensor([50.0])])
    low, high = collected(x).percentile(99.9)
    assert -1.1 < low < -0.9
    assert 0.9 < high < 1.1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_infinity_name_the_site(bad: float) -> None:
    with pytest.raises(CalibrationError, match="mid:input"):
        Histogram().collect(torch.tensor([0.0, bad]), "mid:input")


def test_weight_scale_beats_min_max_on_an_outlier_channel() -> None:
    weight = torch.randn(4, 16, 3, 3, generator=torch.Generator().manual_seed(0))
    weight[1, 0, 0, 0] = 8.0
    kind = weight_type(4)
    scale = choose_weight_scale(weight, kind)
    assert torch.equal(scale, fp16_exact(scale))
    flat = weight.flatten(1)
    minmax = fp16_exact(torch.maximum(flat.amin(1).abs() / 8, flat.amax(1) / 7))
    error, reference = (((fake_quantize(flat, s[:, None], 0, kind) - flat) ** 2).sum(1) for s in (scale, minmax))
    assert (error <= reference + 1e-6).all()
    assert error[1] < 0.9 * reference[1]


@pytest.mark.parametrize("bits", [4, 8])
def test_small_weights_use_the_same_integers(bits: int) -> None:
    """A power of two changes scales only: channels as small as 1e-9 keep all their levels."""
    weight, kind = torch.randn(6, 30, generator=torch.Generator().manual_seed(3)), weight_type(bits)
    plain = choose_weight_scale(weight, kind)
    for power in (2.0**-7, 2.0**-30):
        assert torch.equal(choose_weight_scale(weight * power, kind), plain * power)


def test_channels_of_zeros_and_of_many_octaves_stand_side_by_side() -> None:
    weight = torch.randn(30, generator=torch.Generator().manual_seed(3)) * torch.tensor([0.0, 1.0, 2.0**-25]).view(
        -1, 1
    )
    scale = choose_weight_scale(weight, weight_type(8))
    assert scale[0] == SMALLEST_SCALE
    assert scale[2] == scale[1] * 2.0**-25


@pytest.mark.parametrize("method", ["mse", "minmax", "percentile"])
@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
@pytest.mark.parametrize("value", [0.0, 0.7, -123.4, 1e5])
def test_a_constant_is_represented(value: float, scheme: Scheme, method: str) -> None:
    x = torch.full((50,), value)
    scale, zero_point = choose_qparams(collected(x, x), KIND, scheme, method, 99.99)  # type: ignore[arg-type]
    assert torch.equal(scale, fp16_exact(scale))
    assert (fake_quantize(x, scale, zero_point, KIND) - x).abs().max() <= abs(value) * 2e-5


@pytest.mark.parametrize("count", [1, 1000, 2**17 + 3])
def test_bins_hold_what_torch_histc_counts(count: int) -> None:
    """Bit for bit, at the ends of the span, at edges of bins and just below them too."""
    for seed, span in ((0, 8.0), (1, 2.0**-20), (2, 1024.0)):
        values = (heavy_tailed(seed, count).clamp(-30, 30) / 30 * span).float()
        edges = torch.linspace(-span, span, 257)
        below = torch.nextafter(edges, torch.tensor(-math.inf)).clamp(-span, span)
        x = torch.cat([values, edges, below])
        assert torch.equal(bin_counts(x, span).double(), torch.histc(x, BINS, -span, span).double())


def test_a_large_tensor_is_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    x = heavy_tailed()
    whole = collected(x)
    monkeypatch.setattr(observer, "COUNTED", 1000)
    assert torch.equal(collected(x).counts, whole.counts)
