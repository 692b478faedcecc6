"""Fake quantization and its gradients in torch's own operations: what a CPU computes, and what the kernels must equal.

Nothing here reads a number of a GPU: the host would wait for everything that the GPU still has to do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dq_toolchain.toolchain.quant.qparams import SMALLEST_SCALE, fp16_exact

END = 2.0**-10
"""By how much a weight may lie beyond the range and still learn, in integer steps: one at the very end may leave it."""


def straight_through(rounded: Tensor, x: Tensor) -> Tensor:
    """The value of ``rounded`` with the gradient of ``x``; same shape."""
    return x + (rounded - x).detach()


def fp16_scale(log_scale: Tensor, smallest: float = SMALLEST_SCALE) -> Tensor:
    """exp(log_scale) rounded to fp16, gradient as if it were not rounded."""
    scale = log_scale.exp()
    return straight_through(fp16_exact(scale.detach(), smallest), scale)


class FakeQuantize(torch.autograd.Function):
    """scale * clamp(round(x / scale), lowest, highest), straight-through in x and with LSQ's gradient in scale.

    That gradient (Esser et al. 2020, eq. 3), (y - x) / scale inside the range and y / scale outside, summed against
    the gradient of y, is two dot products; they and in-place operations take a third of the time of torch's own
    learnable fake-quantization on a CPU. Where the integers are many, y and x agree in so many bits that y - x has to be
    taken before anything is summed.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, lowest: float, highest: float) -> Tensor:
        """x float32, any shape; scale (1,); lowest, highest: the integers' ends less the zero_point."""
        y = (x / scale).round_().clamp_(lowest, highest).mul_(scale)
        ctx.ends = lowest - 0.5, highest + 0.5
        ctx.save_for_backward(x, y, scale)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, y, scale = ctx.saved_tensors
        passed = _where_inside(gradient, x, scale, ctx.ends)
        if ctx.ends[1] - ctx.ends[0] > 2**8:  # more integers than a byte holds
            of_scale = (_dot(passed, y - x) + _dot(gradient - passed, y)) / scale
        else:
            of_scale = (_dot(gradient, y) - _dot(passed, x)) / scale
        return passed, of_scale, None, None


def _where_inside(gradient: Tensor, x: Tensor, scale: Tensor, ends: tuple[float, float]) -> Tensor:
    """The gradient, zero where x is not between the ends in steps of the scale, (1,)."""
    if at_hand(scale):  # one operation does it
        low, high = (end * float(scale) for end in ends)
        passed: Tensor = torch.ops.aten.hardtanh_backward(gradient, x, low, high)
        return passed
    low_end, high_end = (end * scale for end in ends)  # the same float32 numbers: few bits of an end and of a scale
    return torch.where((x > low_end) & (x < high_end), gradient, 0.0)


def at_hand(x: Tensor) -> bool:
    """Whether the host reads a number of x without waiting for a device."""
    return x.device.type == "cpu"


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.flatten(), b.flatten())


class FakeQuantizeWeight(torch.autograd.Function):
    """scale * round(clamp(ratio + offset, lowest, highest)), straight-through in the offset inside the range.

    ``FakeQuantize``'s counterpart for weights, in as few passes over them as it takes: there are many. The ratio is
    computed anew for the gradient: kept, it would be a second copy of a network's weights.
    """

    @staticmethod
    def forward(
        ctx: Any,
        source: Tensor,
        searched: Tensor,
        offset: Tensor | None,
        scale: Tensor,
        lowest: float,
        highest: float,
    ) -> Tensor:
        """source: the weight, float32, whose ratio to ``searched`` is rounded, or int8 integers that stand for that ratio.

        searched, scale: (out,); offset: shape of the source, or None.
        """
        ctx.ends = lowest, highest
        ctx.save_for_backward(source, searched, offset, scale)
        return _moved(source, searched, offset).clamp_(lowest, highest).round_().mul_(per_channel(scale, source))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor | None, Tensor, None, None]:
        source, searched, offset, scale = ctx.saved_tensors
        low, high = ctx.ends
        moved, of_offset = _moved(source, searched, offset), None
        if ctx.needs_input_grad[2]:
            # a weight at the very end of the range may still learn to leave it
            of_offset = torch.ops.aten.hardtanh_backward(gradient, moved, low - END, high + END)
            of_offset.mul_(per_channel(scale, source))
        of_scale = moved.clamp_(low, high).round_().mul_(gradient).flatten(1).sum(1)
        return None, None, of_offset, of_scale, None, None


def _moved(source: Tensor, searched: Tensor, offset: Tensor | None) -> Tensor:
    """What is rounded, in integer steps, float32, nobody else's."""
    ratio = source.float() if source.dtype == torch.int8 else source / per_channel(searched, source)
    return ratio if offset is None else ratio.add_(offset)


def per_channel(scale: Tensor, weight: Tensor) -> Tensor:
    """(out,) in a shape that broadcasts to the weight's."""
    return scale.view(-1, *[1] * (weight.dim() - 1))
