"""Measures the range of every site per step group, streamed: one fixed-size histogram each, whatever is run through.

The histogram's span doubles when a larger value arrives (pairs of bins merge), so one pass is enough and nothing
proportional to samples or steps is held.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from dq_toolchain.toolchain.errors import CalibrationError
from dq_toolchain.toolchain.quant.qparams import (
    SMALLEST_SCALE,
    SMALLEST_WEIGHT_SCALE,
    IntegerType,
    Scheme,
    fake_quantize,
    fp16_exact,
    range_to_qparams,
)

RangeMethod = Literal["mse", "minmax", "percentile"]
BINS = 16384
"""Some 30 bins per integer step, so that the search on bin centres ranks candidates as the data would."""
CANDIDATES = 80
CACHED = 2**17
"""Weights whose scales are searched at once on a CPU: what stays in its cache over all candidates."""
NORM = 2.4
NOTHING, LARGEST = -100, 127
"""Exponents of a histogram's span: values up to the one count as zeros, as float32 has no bins for them; and the largest that
float32 holds."""
COUNTED = 2**22
"""Values that are sorted into bins at once: bounds the memory of their bin numbers."""


class Histogram:
    """Counts of values in [-span, span], plus exact minimum and maximum. span is a power of two."""

    def __init__(self) -> None:
        self.span = 0.0
        self.counts = torch.zeros(BINS, dtype=torch.float64)
        self.low, self.high = math.inf, -math.inf
        self.output = 0.0
        """Largest absolute value that the site's layer gave; 0 where that was not looked at."""

    @property
    def is_constant(self) -> bool:
        """Whether one value is all that was seen."""
        return self.low == self.high

    def collect(self, x: Tensor, site: str) -> None:
        """Add a tensor of any shape. Raises CalibrationError naming the site when it holds NaN or infinity."""
        low, high = (float(v) for v in torch.aminmax(x.detach()))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise not_finite(site)
        self.low, self.high = min(self.low, low), max(self.high, high)
        largest = max(-low, high)
        if largest > max(self.span, 2.0**NOTHING):
            self.widen(2.0 ** min(LARGEST, math.ceil(math.log2(largest))))
        if self.span > 0:
            for part in x.detach().float().flatten().split(COUNTED):
                self.counts += bin_counts(part, self.span).to("cpu", torch.float64)
        else:
            self.counts[BINS // 2] += x.numel()

    def widen(self, span: float) -> None:
        """Span at least ``span``, a power of two."""
        if self.span == 0.0:
            self.span = span
        while self.span < span:
            self._double()

    def _double(self) -> None:
        merged = self.counts.view(-1, 2).sum(1)
        self.counts = torch.cat(
            [torch.zeros(BINS // 4, dtype=torch.float64), merged, torch.zeros(BINS // 4, dtype=torch.float64)]
        )
        self.span *= 2

    @property
    def centers(self) -> Tensor:
        """(BINS,) float32 bin centres, clipped to the observed range."""
        edges = torch.linspace(-self.span, self.span, BINS + 1)
        return ((edges[:-1] + edges[1:]) / 2).clamp(self.low, self.high)

    def percentile(self, percent: float) -> tuple[float, float]:
        """The two-sided range holding ``percent`` of the values (e.g. 99.99)."""
        share = self.counts.cumsum(0) / self.counts.sum()
        tail = (100 - percent) / 200
        low = self.centers[int(torch.searchsorted(share, tail))]
        high = self.centers[min(BINS - 1, int(torch.searchsorted(share, 1 - tail)))]
        return float(low), float(high)


def not_finite(site: str) -> CalibrationError:
    """What to say of a site that was given NaN or infinity."""
    return CalibrationError(
        f"activations at site {site} hold NaN or infinity in the FP32 rollout; check the model's weights and the scheduler"
    )


def bin_counts(x: Tensor, span: float) -> Tensor:
    """(BINS,) int64: how many of the values x (n,) float32 lie in each of BINS equal bins of [-span, span], span at least
    2**NOTHING; those beyond count as its ends.

    The counts of ``torch.histc``, with the same arithmetic (``span`` is a power of two), in a quarter of its time on a CPU.
    """
    number = (x + span).mul_(BINS / (2 * span)).to(torch.int32).clamp_(0, BINS - 1)
    return torch.bincount(number, minlength=BINS)


def choose_qparams(
    histogram: Histogram, kind: IntegerType, scheme: Scheme, method: RangeMethod, percentile: float
) -> tuple[Tensor, Tensor]:
    """scale () float32 fp16-exact and zero_point () int32 for one site and step group.

    ``mse`` shrinks (min, max) jointly by 1 - 0.01 i, i = 0..79, and keeps the smallest error in the L2.4 norm
    (the search of Q-Diffusion's and PTQ4DM's code, on a histogram). A value that never changes is represented as exactly
    as a scale can, whatever the method.
    """
    if histogram.is_constant:
        return _of_constant(histogram.low, kind)
    if method == "percentile":
        low, high = histogram.percentile(percentile)
        return range_to_qparams(torch.tensor(low), torch.tensor(high), kind, scheme)
    low, high = histogram.low, histogram.high
    if method == "minmax":
        return range_to_qparams(torch.tensor(low), torch.tensor(high), kind, scheme)
    shrink = 1 - 0.01 * torch.arange(CANDIDATES, dtype=torch.float32)
    scales, zero_points = range_to_qparams(low * shrink, high * shrink, kind, scheme)
    used = histogram.counts > 0
    centers, counts = histogram.centers[used], histogram.counts[used]
    restored = fake_quantize(centers, scales[:, None], zero_points[:, None], kind)
    error = ((restored - centers).abs().pow(NORM).double() * counts).sum(1)
    best = int(error.argmin())
    return scales[best], zero_points[best]


def _of_constant(value: float, kind: IntegerType) -> tuple[Tensor, Tensor]:
    """Zero takes any scale; of the others the integer is taken whose scale loses least when it is rounded."""
    zero_point = torch.zeros((), dtype=torch.int32)
    if value == 0:
        return torch.tensor(SMALLEST_SCALE), zero_point
    integers = torch.arange(1, kind.qmax + 1)
    scales = fp16_exact(abs(value) / integers)
    return scales[(fake_quantize(torch.tensor(value), scales, 0, kind) - value).abs().argmin()], zero_point


def choose_weight_scale(weight: Tensor, kind: IntegerType) -> Tensor:
    """(out,) float32 fp16-exact per-channel scale with the smallest squared rounding error over the same shrinks."""
    flat = weight.detach().flatten(1)
    rows = max(1, CACHED // flat.shape[1]) if flat.device.type == "cpu" else len(flat)
    return torch.cat([_best_scale(part, kind) for part in flat.split(rows)])


def _best_scale(flat: Tensor, kind: IntegerType) -> Tensor:
    low, high = flat.amin(1), flat.amax(1)
    best_error = torch.full((len(flat),), math.inf, device=flat.device)
    best = torch.ones(len(flat), device=flat.device)
    for i in range(CANDIDATES):
        factor = 1 - 0.01 * i
        scale, _ = range_to_qparams(low * factor, high * factor, kind, "symmetric", SMALLEST_WEIGHT_SCALE)
        error = (fake_quantize(flat, scale[:, None], 0, kind) - flat).square().sum(1)
        better = error < best_error
        best, best_error = torch.where(better, scale, best), torch.where(better, error, best_error)
    return best
