"""Which devices quantize in fused kernels: CUDA devices where Triton builds them and a probe finds them equal.

The probe runs once per device and process, before anything else is quantized there; later questions cost nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from dq_toolchain.calibrate.network.kernels import QuantizeActivation, QuantizeWeight, triton_kernels
from dq_toolchain.calibrate.network.straight_through import FakeQuantize, FakeQuantizeWeight, fp16_scale
from dq_toolchain.toolchain.console.printable import printable
from dq_toolchain.toolchain.quant.qparams import SMALLEST_SCALE, SMALLEST_WEIGHT_SCALE

SLOWER = "fake quantization takes torch's own operations, several times as many, in the place of fused kernels"
_told: set[str] = set()
TOLERANCE = 1e-6
"""Of gradients of scales, relative to the sum of their terms' magnitudes: float32 sums in another order."""


def usable(x: Tensor) -> bool:
    """Whether x is on a CUDA device that has kernels. They take float32."""
    return x.device.type == "cuda" and why_not(x.device) is None


def why_not(device: torch.device) -> str | None:
    """Why this CUDA device has no fused kernels, with what to do; None where it has them, and of any other device."""
    if device.type != "cuda":
        return None
    return _why_not(torch.cuda.current_device() if device.index is None else device.index)


def tell(device: torch.device, warn: Callable[[str], None]) -> None:
    """Warn of a CUDA device without kernels, once per process."""
    reason = why_not(device)
    if reason is not None and reason not in _told:
        _told.add(reason)
        warn(f"{SLOWER}: {reason}")


@functools.cache
def _why_not(index: int) -> str | None:
    try:
        triton_kernels()
    except ImportError:
        return "Triton is not installed; `pip install triton` gets it"
    try:
        agree = probe(torch.device("cuda", index))
    except Exception as error:  # of Triton, its compilers, a driver, or a GPU too old: there is no common class
        return f"Triton cannot build them for {torch.cuda.get_device_name(index)}: {printable(error, longest=200)}"
    return (
        None
        if agree
        else f"on {torch.cuda.get_device_name(index)} they differ from torch's operations; please report it"
    )


def probe(device: torch.device) -> bool:
    """Whether the kernels give what torch's operations give there: numbers at ties and ends included, and gradients."""
    ratio = torch.linspace(-140, 140, 2241, device=device)  # eighths: integers, ties, ends, beyond
    wide = torch.cat([ratio, ratio - 2.0**15, ratio + 2.0**15])
    return (
        _activations_agree(ratio, -131.0, 124.0)
        and _activations_agree(wide, -(2.0**15), 2.0**15 - 1)
        and _weights_agree(ratio)
    )


def _activations_agree(ratio: Tensor, lowest: float, highest: float) -> bool:
    log_scale = torch.tensor([0.3, -2.7], device=ratio.device)
    x = (ratio * fp16_scale(log_scale[1:])).requires_grad_()
    log_scale.requires_grad_()
    found = QuantizeActivation.apply(x, log_scale, 1, SMALLEST_SCALE, lowest, highest)  # type: ignore[no-untyped-call]
    expected = FakeQuantize.apply(x, fp16_scale(log_scale[1:]), lowest, highest)  # type: ignore[no-untyped-call]
    return torch.equal(found, expected) and _gradients_agree(found, expected, x, log_scale)


def _weights_agree(ratio: Tensor) -> bool:
    weight = ratio.expand(3, -1) * torch.tensor([[0.5], [0.037], [0.011]], device=ratio.device)
    searched, log_scale = weight[:, -1] / ratio[-1], (weight[:, -1] / 130).log().requires_grad_()
    offset = torch.full_like(weight, 0.25).requires_grad_()
    given = weight, searched, offset
    found = QuantizeWeight.apply(*given, log_scale, SMALLEST_WEIGHT_SCALE, -127, 127)  # type: ignore[no-untyped-call]
    expected = FakeQuantizeWeight.apply(*given, fp16_scale(log_scale, SMALLEST_WEIGHT_SCALE), -127, 127)  # type: ignore[no-untyped-call]
    return torch.equal(found, expected) and _gradients_agree(found, expected, offset, log_scale)


def _gradients_agree(found: Tensor, expected: Tensor, passed_to: Tensor, log_scale: Tensor) -> bool:
    sent = torch.linspace(-1, 1, found.numel(), device=found.device).sin().view_as(found)
    terms = float((sent * expected.detach()).abs().sum())
    of = passed_to, log_scale
    (passed, summed), (other, sums) = (torch.autograd.grad(y, of, sent) for y in (found, expected))
    return torch.equal(passed, other) and torch.allclose(summed, sums, rtol=TOLERANCE, atol=TOLERANCE * terms)
