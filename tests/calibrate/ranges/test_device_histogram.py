"""Histograms that are counted on a device hold what those hold that the host counts, to the last value."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dq_toolchain.calibrate.ranges import device_histogram
from dq_toolchain.calibrate.ranges.device_histogram import DeviceHistograms
from dq_toolchain.calibrate.ranges.observer import NOTHING, Histogram
from dq_toolchain.toolchain.errors import CalibrationError

HERE = torch.device("cpu")


def both(*pieces: Tensor) -> tuple[Histogram, Histogram]:
    """Counted as a device does, and by the host."""
    device, host, found = DeviceHistograms(HERE), Histogram(), Histogram()
    for piece in pieces:
        host.collect(piece, "site")
        device.collect(0, 0, piece, "site")
    device.into([[found]])
    return found, host


def drawn(seed: int, count: int = 3000) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, count // 3, generator=generator) * 10 ** float(
        torch.empty(()).uniform_(-6, 5, generator=generator)
    )


SEEN = {
    "of many sizes": [drawn(seed) for seed in range(12)],
    "smaller and smaller": [torch.linspace(-1, 1, 501) * 2.0**-k for k in range(8)],
    "larger and larger": [torch.linspace(-1, 1, 501) * 2.0**k for k in range(8)],
    "powers of two": [torch.tensor([2.0**k, -(2.0**k)]) for k in range(-20, 20, 3)],
    "just beside powers of two": [
        torch.nextafter(torch.tensor([2.0**k]), torch.tensor(end)) for k in range(-3, 4) for end in (0.0, math.inf)
    ],
    "zeros": [torch.zeros(7), torch.zeros(5)],
    "zeros, then values": [torch.zeros(7), torch.full((3,), 0.7), torch.zeros(4)],
    "a constant": [torch.full((9,), -3.25)] * 3,
    "one sign": [torch.rand(50, generator=torch.Generator().manual_seed(1)) + 3],
    "half precision": [drawn(3).clamp(-100, 100).to(torch.bfloat16)],
    "small values, then others": [torch.full((4,), 1e-5), drawn(20)],
    "next to nothing": [torch.tensor([1e-36, -1e-36, 0.0]), torch.tensor([1e-40, -1e-41])],
    "next to nothing, then others": [torch.tensor([1e-36, -1e-36]), torch.tensor([3e-31, -3e-31]), drawn(20)],
    "at the least span": [torch.tensor([2.0**e, -(2.0**e)]) for e in range(NOTHING - 2, NOTHING + 3)],
    "as large as float32 holds": [torch.tensor([3.4e38, -3.4e38, 1e38, 0.0])],
}


@pytest.mark.parametrize("what", SEEN)
def test_counts_and_ends_are_the_hosts(what: str) -> None:
    found, host = both(*SEEN[what])
    assert (found.low, found.high, found.span) == (host.low, host.high, host.span)
    assert torch.equal(found.counts, host.counts)
    assert found.is_constant == host.is_constant


def test_a_large_tensor_is_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_histogram, "COUNTED", 100)
    found, host = both(drawn(4), drawn(5))
    assert torch.equal(found.counts, host.counts)


def test_the_largest_output_counts_and_nan_among_outputs_does_not() -> None:
    histograms, found = DeviceHistograms(HERE), Histogram()
    for out in (torch.tensor([1.0, -7.5]), torch.tensor([torch.nan, 3.0]), torch.tensor([2.0])):
        histograms.of(0, 0).collect_output(out)
    histograms.into([[found]])
    assert found.output == 7.5


@pytest.mark.parametrize("lag", [0, 1])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_first_site_that_is_not_finite_is_named_at_most_a_pass_late(bad: float, lag: int) -> None:
    histograms = DeviceHistograms(HERE)
    histograms._reads.lag = lag
    passes = [{"a": 1.0, "b": 2.0}, {"a": 1.0, "b": bad, "c": bad}, {"a": bad, "b": 1.0}]
    for values in passes[: 2 + lag]:
        histograms.check()
        for column, (site, value) in enumerate(values.items()):
            histograms.collect(0, column, torch.tensor([0.5, value]), site)
    with pytest.raises(CalibrationError, match="site b hold"):
        histograms.check()


def test_what_is_not_finite_in_the_last_pass_is_refused_at_the_end() -> None:
    histograms = DeviceHistograms(HERE)
    histograms._reads.lag = 1
    histograms.check()
    histograms.collect(0, 0, torch.tensor([math.nan]), "mid:input")
    with pytest.raises(CalibrationError, match="mid:input"):
        histograms.into([[Histogram()]])
