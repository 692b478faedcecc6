"""``Histogram`` where reading a number costs: the same counts, made without the host knowing any of them until the end.

What ``Histogram`` decides on the host, whether its span doubles and how often, is arithmetic on the device here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dq_toolchain.calibrate.ranges.observer import BINS, COUNTED, LARGEST, NOTHING, Histogram, not_finite
from dq_toolchain.calibrate.work.host_reads import read_on_host
from dq_toolchain.calibrate.work.lagged import Lagged
from dq_toolchain.toolchain.sampler.transfer import to_device

NEVER = 2**40
"""The number of a call that was not made."""
CENTRE = BINS // 2


class DeviceHistogram:
    """Counts of one site in one step group, all of it on a device."""

    def __init__(self, powers: Tensor, bins: Tensor) -> None:
        """
        Args:
            powers: 2.0 to the exponents NOTHING .. LARGEST, float32, but 1 for NOTHING: beside it values that small are zeros.
            bins: -CENTRE .. CENTRE - 1, int32. Both shared by all.
        """
        device = powers.device
        self.powers, self.bins = powers, bins
        self.counts = torch.zeros(BINS, dtype=torch.int64, device=device)
        self.low = torch.full((), math.inf, device=device)
        self.high = torch.full((), -math.inf, device=device)
        self.output = torch.zeros((), device=device)
        self.exponent = torch.full((), NOTHING, dtype=torch.int32, device=device)
        self.one = torch.ones(1, dtype=torch.int64, device=device)

    def collect(self, x: Tensor) -> Tensor:
        """Add a tensor of any shape. Returns () bool: whether all of it was finite."""
        x = x.detach()
        low, high = (end.float() for end in torch.aminmax(x))
        self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        self._widen(torch.maximum(-low, high))
        span = self.powers.take((self.exponent - NOTHING).long())
        factor = CENTRE / span
        for part in x.flatten().split(COUNTED):
            number = (part.float() + span).mul_(factor).to(torch.int32).clamp_(0, BINS - 1)
            self.counts.index_add_(0, number, self.one.expand(len(number)))
        return low.isfinite() & high.isfinite()

    def collect_output(self, out: Tensor) -> None:
        """Add what the site's layer gave."""
        largest = torch.stack(torch.aminmax(out.detach())).abs().amax().float()
        self.output = torch.fmax(self.output, largest)

    def _widen(self, largest: Tensor) -> None:
        """Span at least ``largest``, (): each doubling merges pairs of bins, d of them the bins that agree but for d bits."""
        mantissa, exponent = torch.frexp(largest)
        exponent = exponent - (mantissa == 0.5).int()  # the smallest power of two that is not below
        exponent = exponent.masked_fill(~(largest > 0), NOTHING).clamp(NOTHING, LARGEST)
        widened = torch.maximum(self.exponent, exponent)
        merged = CENTRE + (self.bins >> (widened - self.exponent).clamp(max=31))
        self.counts = torch.zeros_like(self.counts).index_add_(0, merged, self.counts)
        self.exponent = widened

    @property
    def numbers(self) -> Tensor:
        """(4,) float64: exponent of the span, smallest and largest value, largest output."""
        return torch.stack([self.exponent.double(), self.low.double(), self.high.double(), self.output.double()])


class DeviceHistograms:
    """Of all sites and step groups; raises for what is not finite, if not at once."""

    def __init__(self, device: torch.device) -> None:
        powers = torch.tensor([1.0, *(2.0**e for e in range(NOTHING + 1, LARGEST + 1))])
        bins = torch.arange(-CENTRE, CENTRE, dtype=torch.int32)
        self.shared = to_device(powers, device), to_device(bins, device)
        self.found: dict[tuple[int, int], DeviceHistogram] = {}
        self.first_bad = torch.full((), NEVER, dtype=torch.int64, device=device)
        """Number of the first call of ``collect`` with something that is not finite."""
        self._calls: list[str] = []
        self._reads: Lagged[None] = Lagged(device, "first site that is not finite")

    def of(self, group: int, column: int) -> DeviceHistogram:
        """The histogram of a step group and site."""
        if (group, column) not in self.found:
            self.found[group, column] = DeviceHistogram(*self.shared)
        return self.found[group, column]

    def collect(self, group: int, column: int, x: Tensor, site: str) -> None:
        """Add what a site was given."""
        is_finite = self.of(group, column).collect(x)
        this = torch.full_like(self.first_bad, len(self._calls)).masked_fill(is_finite, NEVER)
        self.first_bad = torch.minimum(self.first_bad, this)
        self._calls.append(site)

    def check(self, *, all_of_it: bool = False) -> None:
        """To be called between passes. Raises CalibrationError naming the first site with NaN or infinity, one pass late.

        Args:
            all_of_it: not late.
        """
        due = self._reads.put(self.first_bad.double().view(1), None)
        for (first,), _ in (*due, *(self._reads.rest() if all_of_it else ())):
            if first < NEVER:
                raise not_finite(self._calls[int(first)])

    def into(self, histograms: Sequence[Sequence[Histogram]]) -> None:
        """Read everything, ``[step group][site]``."""
        self.check(all_of_it=True)
        if not self.found:
            return
        numbers = read_on_host(torch.stack([h.numbers for h in self.found.values()]), "ranges").tolist()
        counts = read_on_host(torch.stack([h.counts for h in self.found.values()]), "counts").double()
        for (group, column), (exponent, low, high, output), row in zip(self.found, numbers, counts, strict=True):
            histogram = histograms[group][column]
            histogram.span = 0.0 if exponent == NOTHING else 2.0**exponent
            histogram.low, histogram.high, histogram.output, histogram.counts = low, high, output, row.clone()
        self.found.clear()
