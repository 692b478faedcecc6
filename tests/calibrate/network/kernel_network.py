"""A whole network through the kernels and through the reference, and what the probe of a device finds: for ``kernel_cases``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from dq_toolchain.calibrate.network import fake_quant, triton_kernels
from dq_toolchain.calibrate.network.insert import QuantizedNetwork, prepare
from dq_toolchain.calibrate.network.kernel_choice import probe
from dq_toolchain.calibrate.network.straight_through import FakeQuantize
from dq_toolchain.calibrate.ranges.observer import choose_weight_scale
from dq_toolchain.toolchain.quant.qparams import weight_type
from dq_toolchain.toolchain.recipe.sections import QuantizeSection
from tests.tiny import small_unet

DEVICE = torch.device(sys.argv[1] if len(sys.argv) > 1 else "cpu")
"""Of the kernels."""
HOST = torch.device("cpu")


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3


class ExactSums(FakeQuantize):
    """The reference with its scale's gradient summed in float64: the difference of two float32 sums is too far from it."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, y, scale = ctx.saved_tensors
        passed, _, _, _ = FakeQuantize.backward(ctx, gradient)
        exact = (gradient.double() * y.double()).sum() - (passed.double() * x.double()).sum()
        return passed, (exact / scale).float(), None, None


def network() -> dict[str, float]:
    """The gradients of a whole network, through the kernels and through the reference, both on their device.

    Returns:
        The distance of each parameter's gradient, relative to its norm, and of the output.
    """

    def call(unet: nn.Module) -> Tensor:
        on = next(unet.parameters()).device
        given = (numbers(2, 1, 8, 8), torch.tensor([10.0, 700.0]), torch.tensor([3, 4]))
        y: Tensor = unet(*(each.to(on) for each in given[:2]), class_labels=given[2].to(on))[0]
        return y

    prepared = prepare(small_unet(), QuantizeSection(weight_bits=4), call)
    weights = {
        site.layer: choose_weight_scale(
            prepared.network.get_parameter(f"{site.layer}.weight"), weight_type(site.weight_bits)
        )
        for site in prepared.sites
        if site.weight_bits is not None
    }
    torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32 = True, False
    shape, found = (2, len(prepared.sites)), []
    for uses_kernels in (True, False):
        quantized = QuantizedNetwork(
            prepared, torch.full(shape, 2.0**-5), torch.zeros(shape, dtype=torch.int32), weights, (0, 1),
            learned_rounding=True,
        ).to(DEVICE)  # fmt: skip
        quantized.set_step(1)
        with (
            patch.object(fake_quant, "usable", lambda _x, chosen=uses_kernels: chosen),
            patch.object(fake_quant, "FakeQuantize", ExactSums),
        ):
            y = call(quantized)
        y.square().sum().backward()
        learned = {**quantized.scale_parameters(), **quantized.weight_parameters()}
        found.append(
            {"output": y.detach().cpu(), **{n: p.grad.cpu() for n, p in learned.items() if p.grad is not None}}
        )
    one, other = found
    assert one.keys() == other.keys()
    return {name: float((one[name] - other[name]).norm() / other[name].norm().clamp_min(1e-12)) for name in one}


def probes() -> list[str]:
    """What the probe lets pass: the kernels as they are, and with each of four mistakes in turn."""
    passed = ["as they are"] if probe(DEVICE) else []
    mistakes: dict[str, tuple[str, Callable[..., Any]]] = {
        "an integer more": ("activation_forward", lambda y: y + 0.07),
        "the scale's gradient by 1e-3": ("activation_backward", lambda two: (two[0], two[1] * 1.001)),
        "a weight by a bit": ("weight_forward", lambda y: y.nextafter(y + 1)),
        "the offset's gradient by a bit": ("weight_backward", lambda two: (two[0].nextafter(two[0] + 1), two[1])),
    }
    for mistake, (name, spoil) in mistakes.items():
        right = getattr(triton_kernels, name)
        with patch.object(triton_kernels, name, lambda *a, right=right, spoil=spoil, **k: spoil(right(*a, **k))):
            passed += [mistake] if probe(DEVICE) else []
    return passed
