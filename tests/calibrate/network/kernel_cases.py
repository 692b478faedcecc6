"""The kernels beside the reference on the CPU: every case in one process, what was seen as JSON on stdout.

In Triton's interpreter: ``TRITON_INTERPRET=1 python -m tests.calibrate.network.kernel_cases``. On a GPU without that
variable, and with ``cuda`` as its argument.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from dq_toolchain.calibrate.network import triton_kernels
from dq_toolchain.calibrate.network.kernels import QuantizeActivation, QuantizeWeight
from dq_toolchain.calibrate.network.straight_through import FakeQuantize, FakeQuantizeWeight, fp16_scale
from dq_toolchain.toolchain.quant.qparams import (
    SMALLEST_SCALE,
    SMALLEST_WEIGHT_SCALE,
    IntegerType,
    activation_type,
    fp16_exact,
    weight_type,
)
from tests.calibrate.network.kernel_network import DEVICE, HOST, network, numbers, probes

BITS = (8, 4, 2)
LONG = 2500
"""More than two programs' elements of an activation, and more than one step along a row of a weight."""


@dataclass(frozen=True)
class Seen:
    """``same_value``, ``same_gradient``: bit for bit but for the sign of a zero, the latter of x or of the offset.

    ``of_log_scale``: the kernels' distance from the reference; ``of_truth``: from a sum in float64; both relative to the
    sum of the magnitudes of the reference's terms, the largest over step groups or channels.
    """

    same_value: bool
    same_gradient: bool
    of_log_scale: float
    of_truth: float
    strides_kept: bool = True


def activation(x: Tensor, kind: IntegerType, zero_points: tuple[int, ...], group: int = 0, raw: float = 0.07) -> Seen:
    """One tensor through both, with gradients that are random numbers in the layout of x."""
    scales = torch.tensor([raw * (1 + 0.3 * g) for g in range(len(zero_points))])
    ends = kind.qmin - float(zero_points[group]), kind.qmax - float(zero_points[group])
    given = [(x.detach().to(on).requires_grad_(), scales.log().to(on).requires_grad_()) for on in (DEVICE, HOST)]
    found = QuantizeActivation.apply(*given[0], group, SMALLEST_SCALE, *ends)  # type: ignore[no-untyped-call]
    expected = FakeQuantize.apply(given[1][0], fp16_scale(given[1][1][group : group + 1]), *ends)  # type: ignore[no-untyped-call]
    sent = torch.randn(x.shape, generator=torch.Generator().manual_seed(5)).to(memory_format=torch.preserve_format)
    one = [gradient.cpu() for gradient in torch.autograd.grad(found, given[0], sent.to(DEVICE))]
    other = torch.autograd.grad(expected, given[1], sent)
    y = expected.detach().double()
    scale = fp16_scale(scales.log()[group : group + 1]).double()
    inside, held = other[0] != 0, x.detach().double()
    terms = (sent * y).abs() + torch.where(inside, sent * held, 0.0).abs()
    total = float(terms.nan_to_num().sum() / scale * scales[group]) or 1.0
    truth = torch.zeros(len(scales), dtype=torch.float64)
    truth[group] = (
        (sent * torch.where(inside, y - held, y + (held - held))).sum() / scale * scales.log().exp()[group].double()
    )
    return Seen(
        same_value=same(found.cpu(), expected),
        same_gradient=same(one[0], other[0]),
        of_log_scale=apart(one[1], other[1]) / total,
        of_truth=apart(one[1].double(), truth) / total,
        strides_kept=found.stride() == torch.empty_like(given[0][0]).stride(),
    )


def weight(source: Tensor, kind: IntegerType, learned: bool, chosen: bool = False) -> Seen:
    """One weight through both; some of it lies beyond the range, some of the offsets at their ends."""
    generator = torch.Generator().manual_seed(7)
    rows = source.detach().float().flatten(1)
    searched = (rows.abs().amax(1).clamp_min(1e-3) / (kind.qmax + 0.7)) if rows.numel() else torch.ones(len(rows))
    if chosen:
        source = (
            (source / searched.view(-1, *[1] * (source.dim() - 1))).round().clamp(kind.qmin, kind.qmax).to(torch.int8)
        )
    noise = torch.empty_like(source, dtype=torch.float32).copy_(torch.randn(source.shape, generator=generator))
    offset = noise.clamp(-0.5, 0.5) if learned else None
    log_scale = searched.log() + 0.1 * torch.randn(searched.shape, generator=generator)
    sent = torch.randn(source.shape, generator=generator)
    outcomes = []
    for on, rounded in ((DEVICE, _by_kernel), (HOST, _by_reference)):
        own = None if offset is None else offset.detach().to(on).requires_grad_()
        log = log_scale.to(on, copy=True).requires_grad_()
        y = rounded(source.to(on), searched.to(on), own, log, kind)
        gradients = torch.autograd.grad(y, [log] if own is None else [log, own], sent.to(on))
        outcomes.append([y.detach().cpu(), *(gradient.cpu() for gradient in gradients)])
    (found, of_log, *of_offset), (expected, log_expected, *offset_expected) = outcomes
    terms = (sent * expected).abs().flatten(1).sum(1).clamp_min(1e-30)
    raw = log_scale.exp().double()
    steps = expected.detach().double() / fp16_scale(log_scale, SMALLEST_WEIGHT_SCALE).double().view(
        -1, *[1] * (source.dim() - 1)
    )
    truth = (steps * sent).flatten(1).sum(1) * raw
    return Seen(
        same_value=same(found, expected),
        same_gradient=all(same(a, b) for a, b in zip(of_offset, offset_expected, strict=True)),
        of_log_scale=apart(of_log, log_expected, terms),
        of_truth=apart(of_log.double(), truth, terms),
    )


def _by_kernel(source: Tensor, searched: Tensor, offset: Tensor | None, log_scale: Tensor, kind: IntegerType) -> Tensor:
    y: Tensor = QuantizeWeight.apply(  # type: ignore[no-untyped-call]
        source, searched, offset, log_scale, SMALLEST_WEIGHT_SCALE, kind.qmin, kind.qmax
    )
    return y


def _by_reference(
    source: Tensor, searched: Tensor, offset: Tensor | None, log_scale: Tensor, kind: IntegerType
) -> Tensor:
    scale = fp16_scale(log_scale, SMALLEST_WEIGHT_SCALE)
    y: Tensor = FakeQuantizeWeight.apply(source, searched, offset, scale, kind.qmin, kind.qmax)  # type: ignore[no-untyped-call]
    return y


def same(found: Tensor, expected: Tensor) -> bool:
    return bool(((found == expected) | (found.isnan() & expected.isnan())).all())


def apart(found: Tensor, expected: Tensor, terms: Tensor | None = None) -> float:
    """The largest distance; where both are NaN there is none, where one is there is no bound."""
    distance = torch.where(found.isnan() & expected.isnan(), 0.0, (found - expected).abs()) / (
        1 if terms is None else terms
    )
    return float(distance.detach().nan_to_num(nan=float("inf")).max()) if distance.numel() else 0.0


def activations() -> Iterator[tuple[str, Seen]]:
    for bits, zero in itertools.product(BITS, (0, -2, 1)):
        yield f"{bits} bits, zero_point {zero}", activation(numbers(LONG), activation_type(bits), (zero,))
    sixteen = activation_type(16)
    yield "16 bits", activation(numbers(LONG) * 300, sixteen, (0,))
    eight = activation_type(8)
    for shape in ((1,), (0,), (3, 0, 2), (7, 13), (1024,), (1025,), (2, 3, 5, 7)):
        yield f"shape {shape}", activation(numbers(*shape), eight, (-11,))
    picture = numbers(2, 6, 9, 5)
    layouts = {
        "channels_last": picture.to(memory_format=torch.channels_last),
        "transposed": picture.transpose(1, 3),
        "every second": picture[:, :, ::2],
        "expanded": picture[:1].expand(3, -1, -1, -1),
        "of a longer tensor": numbers(LONG)[3:],
    }
    for name, x in layouts.items():
        yield name, activation(x, eight, (5,))
    for group in range(3):
        yield f"step group {group} of 3", activation(numbers(LONG), eight, (3, -4, 0), group)
    step = float(fp16_scale(torch.tensor([0.07]).log()))
    yield "ties and ends", activation(torch.linspace(-140, 140, 4481) * step, eight, (3,))
    for bits in (16, *BITS):
        low, high = activation_type(bits).qmin, activation_type(bits).qmax
        at = torch.tensor([low - 0.5, low, high, high + 0.5]) * step
        around = torch.stack([at, torch.nextafter(at, at + 1), torch.nextafter(at, at - 1)]).flatten()
        yield f"next to the ends of {bits} bits", activation(around, activation_type(bits), (0,))
    special = numbers(40)
    special[::7] = float("inf")
    special[3::7] = -float("inf")
    yield "infinite", activation(special, eight, (0,))
    yield "not a number", activation(torch.full((64,), float("nan")), eight, (0,))
    yield "below the smallest scale", activation(numbers(LONG) * 1e-3, eight, (2,), raw=1e-6)
    yield "large scale", activation(numbers(LONG) * 1e6, eight, (2,), raw=5e4)


def weights() -> Iterator[tuple[str, Seen]]:
    for bits, learned in itertools.product(BITS, (True, False)):
        rounding = "learned" if learned else "nearest"
        yield f"{bits} bits, {rounding}", weight(numbers(3, LONG), weight_type(bits), learned)
    four = weight_type(4)
    for learned in (True, False):
        yield f"chosen integers, learned {learned}", weight(numbers(5, 30), four, learned, chosen=True)
    for shape in ((1, 1), (9, 7), (4, 3, 3, 3), (6, 4, 3), (2, 0)):
        yield f"shape {shape}", weight(numbers(*shape), four, True)
    kernel = numbers(6, 5, 3, 3)
    layouts = {
        "channels_last": kernel.to(memory_format=torch.channels_last),
        "input channels outermost": kernel.transpose(0, 1),
        "every second": kernel[:, ::2],
    }
    for name, w in layouts.items():
        yield name, weight(w, four, True)
    yield "tiny", weight(numbers(4, 40) * 1e-12, weight_type(8), True)


@triton.jit  # type: ignore[untyped-decorator]
def _round(raw_of, rounded_of, smallest, COUNT: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.arange(0, COUNT)
    tl.store(rounded_of + at, triton_kernels._fp16_exact(tl.load(raw_of + at), smallest))


def rounded_scales() -> bool:
    """Whether kernels round as ``fp16_exact`` does: all numbers of fp16's precision, their neighbours, and all ties."""
    kept = torch.arange(2**11, 2**12, dtype=torch.float32).div(2**11)
    near = torch.cat([kept, *(kept.nextafter(torch.tensor(end)) for end in (0.0, 9.0)), kept + 2.0**-12])
    raw = torch.cat([near * 2.0**exponent for exponent in (-45, -42, 0, 15)]).to(DEVICE)
    found = torch.empty_like(raw)
    _round[(1,)](raw, found, SMALLEST_WEIGHT_SCALE, COUNT=len(raw))
    return torch.equal(found.cpu(), fp16_exact(raw.cpu(), SMALLEST_WEIGHT_SCALE))


def main() -> None:
    seen = {"activations": dict(activations()), "weights": dict(weights())}
    found = {kind: {name: asdict(each) for name, each in of_kind.items()} for kind, of_kind in seen.items()}
    print(json.dumps({**found, "rounded_scales": rounded_scales(), "network": network(), "probes": probes()}))


if __name__ == "__main__":
    main()
