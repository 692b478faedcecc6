"""Fake quantization in fused kernels, for autograd: ``straight_through`` holds the same in torch's own operations.

Nothing is read back to the host, and nothing is kept for the gradient but what was given.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from dq_toolchain.calibrate.network.straight_through import END


class QuantizeActivation(torch.autograd.Function):
    """``straight_through.FakeQuantize`` of fp16_scale(log_scale[group]): one kernel each way, and a small one for the scale."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, log_scale: Tensor, group: int, smallest: float, lowest: float, highest: float
    ) -> Tensor:
        """x float32; log_scale (G,); lowest, highest: the integers' ends less the zero_point."""
        x, raw = _without_gaps(x), log_scale.exp()
        ctx.numbers = group, smallest, lowest, highest
        ctx.save_for_backward(x, raw)
        y: Tensor = triton_kernels().activation_forward(x, raw, *ctx.numbers)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        x, raw = ctx.saved_tensors
        of_x, of_log_scale = triton_kernels().activation_backward(_laid_out_as(x, gradient), x, raw, *ctx.numbers)
        return of_x, of_log_scale, None, None, None, None


class QuantizeWeight(torch.autograd.Function):
    """``straight_through.FakeQuantizeWeight`` from the log-scales and the weight itself: one kernel each way."""

    @staticmethod
    def forward(
        ctx: Any,
        source: Tensor,
        searched: Tensor,
        offset: Tensor | None,
        log_scale: Tensor,
        smallest: float,
        lowest: float,
        highest: float,
    ) -> Tensor:
        """source: the weight, float32, or int8 integers that were chosen; searched, log_scale (out,); offset as source."""
        source = _rows_outermost(source)
        offset = None if offset is None else _laid_out_as(source, offset)
        raw = log_scale.exp()
        ctx.numbers = smallest, (lowest, highest)
        ctx.save_for_backward(source, searched, offset, raw)
        y: Tensor = triton_kernels().weight_forward(source, searched, offset, raw, *ctx.numbers)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor | None, Tensor, None, None, None]:
        source, searched, offset, raw = ctx.saved_tensors
        of_offset, of_log_scale = triton_kernels().weight_backward(
            _laid_out_as(source, gradient), source, searched, offset, raw, *ctx.numbers, END,
            learned=ctx.needs_input_grad[2],
        )  # fmt: skip
        return None, None, of_offset, of_log_scale, None, None, None


def _without_gaps(x: Tensor) -> Tensor:
    """x, copied if its elements do not fill one stretch of memory; in any order, as a kernel goes through memory."""
    dense = torch.empty_like(x)  # has the strides of x exactly where x is dense
    return x if dense.stride() == x.stride() else dense.copy_(x)


def _laid_out_as(x: Tensor, other: Tensor) -> Tensor:
    """``other`` with the strides of x, copied if it has others. x is dense."""
    return other if other.stride() == x.stride() else torch.empty_like(x, dtype=other.dtype).copy_(other)


def _rows_outermost(weight: Tensor) -> Tensor:
    """The weight, copied unless each output channel is one stretch of memory after the other."""
    weight = _without_gaps(weight)
    return weight if weight.stride(0) * len(weight) == weight.numel() else weight.contiguous()


def triton_kernels() -> ModuleType:
    """Raises ImportError: Triton is not installed."""
    from dq_toolchain.calibrate.network import triton_kernels

    return triton_kernels
