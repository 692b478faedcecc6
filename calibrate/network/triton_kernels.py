"""Fake quantization as Triton kernels: one pass over memory each way, and nothing is read back to the host.

Each kernel takes ``raw``, the exponentials of the learned log-scales, and rounds them to fp16 itself. Quotients are
IEEE divisions and ties go to even, so that integers are those of the torch form. Sums have a fixed order: no atomics.
Imported only where Triton is installed: ``kernels`` asks.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024
"""Elements of one program."""
ROW_BLOCK = 1024
"""Elements that one program takes of a row of a weight at a time."""

_ROUNDER = tl.constexpr(1.5 * 2.0**23)
"""Added to a float32 of less than 2^22 and taken off again, it leaves the nearest integer, ties to even."""
_DROPPED = tl.constexpr(13)
"""Bits of a float32's mantissa that a number of fp16's precision does not have."""
_BELOW_HALF = tl.constexpr(2**12 - 1)
"""Half of the last bit that stays, less one."""


@triton.jit
def _fp16_exact(raw, smallest):
    """``qparams.fp16_exact``: rounds a float32 > 0 to 11 significant bits, ties to even; NaN stays NaN."""
    bits = tl.where(raw < smallest, smallest, raw).to(tl.int32, bitcast=True)
    is_odd = (bits >> _DROPPED) & 1
    return (((bits + is_odd + _BELOW_HALF) >> _DROPPED) << _DROPPED).to(tl.float32, bitcast=True)


@triton.jit
def _nearest(ratio, lowest, highest):
    """round(clamp(ratio)), which is clamp(round(ratio)) as the ends are integers; NaN stays NaN."""
    held = tl.where(ratio < lowest, lowest, tl.where(ratio > highest, highest, ratio))
    return (held + _ROUNDER) - _ROUNDER


@triton.jit(do_not_specialize=["group"])
def _activation_forward(x_of, raw_of, y_of, count, group, smallest, lowest, highest, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    held = at < count
    scale = _fp16_exact(tl.load(raw_of + group), smallest)
    ratio = tl.div_rn(tl.load(x_of + at, mask=held, other=0.0), scale)
    tl.store(y_of + at, _nearest(ratio, lowest, highest) * scale, mask=held)


@triton.jit(do_not_specialize=["group"])
def _activation_backward(
    gradient_of, x_of, raw_of, passed_of, sums_of, count, group, smallest, lowest, highest, BLOCK: tl.constexpr
):
    """Of x: the gradient where x was not clamped. Of scale: this program's share of sum(gradient * (y - x or y))."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    held = at < count
    scale = _fp16_exact(tl.load(raw_of + group), smallest)
    gradient = tl.load(gradient_of + at, mask=held, other=0.0)
    x = tl.load(x_of + at, mask=held, other=0.0)
    y = _nearest(tl.div_rn(x, scale), lowest, highest) * scale
    inside = (x > (lowest - 0.5) * scale) & (x < (highest + 0.5) * scale)
    tl.store(passed_of + at, tl.where(inside, gradient, 0.0), mask=held)
    of_scale = tl.where(inside, y - x, y + (x - x))  # an infinite x makes the sum NaN, as in the torch form
    tl.store(sums_of + tl.program_id(0), tl.sum(gradient * of_scale))


@triton.jit(do_not_specialize=["count", "group"])
def _activation_log_scale(
    sums_of, raw_of, result_of, count, group, groups, smallest, BLOCK: tl.constexpr, GROUPS: tl.constexpr
):
    """From the programs' shares to the gradient of all log-scales: one program; step groups not in force get 0."""
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, count, BLOCK):
        at = start + tl.arange(0, BLOCK)
        total += tl.load(sums_of + at, mask=at < count, other=0.0)
    raw = tl.load(raw_of + group)
    of_log_scale = tl.div_rn(tl.sum(total), _fp16_exact(raw, smallest)) * raw
    at = tl.arange(0, GROUPS)
    tl.store(result_of + at, tl.where(at == group, of_log_scale, 0.0), mask=at < groups)


@triton.jit
def _moved(source_of, searched, offset_of, at, held, CHOSEN: tl.constexpr, OFFSET: tl.constexpr):
    """What is rounded, in integer steps."""
    if CHOSEN:
        ratio = tl.load(source_of + at, mask=held, other=0).to(tl.float32)
    else:
        ratio = tl.div_rn(tl.load(source_of + at, mask=held, other=0.0), searched)
    if OFFSET:
        ratio = ratio + tl.load(offset_of + at, mask=held, other=0.0)
    return ratio


@triton.jit
def _weight_forward(
    source_of, searched_of, offset_of, raw_of, y_of, width, smallest, lowest, highest,
    BLOCK: tl.constexpr, CHOSEN: tl.constexpr, OFFSET: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    held, at = column < width, row * width + column
    moved = _moved(source_of, tl.load(searched_of + row), offset_of, at, held, CHOSEN, OFFSET)
    scale = _fp16_exact(tl.load(raw_of + row), smallest)
    tl.store(y_of + at, _nearest(moved, lowest, highest) * scale, mask=held)


@triton.jit
def _weight_backward(
    gradient_of, source_of, searched_of, offset_of, raw_of, of_offset_of, of_log_scale_of, width,
    smallest, lowest, highest, margin,
    BLOCK: tl.constexpr, CHOSEN: tl.constexpr, OFFSET: tl.constexpr, LEARNED: tl.constexpr,
):  # fmt: skip
    """One program a row: the gradient of its offsets, where they are ``LEARNED``, and of its log-scale."""
    row = tl.program_id(0).to(tl.int64)
    searched, raw = tl.load(searched_of + row), tl.load(raw_of + row)
    scale = _fp16_exact(raw, smallest)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, width, BLOCK):
        column = start + tl.arange(0, BLOCK)
        held, at = column < width, row * width + column
        gradient = tl.load(gradient_of + at, mask=held, other=0.0)
        moved = _moved(source_of, searched, offset_of, at, held, CHOSEN, OFFSET)
        total += _nearest(moved, lowest, highest) * gradient
        if LEARNED:
            inside = (moved > lowest - margin) & (moved < highest + margin)
            tl.store(of_offset_of + at, tl.where(inside, gradient, 0.0) * scale, mask=held)
    tl.store(of_log_scale_of + row, tl.sum(total) * raw)


def activation_forward(x: Tensor, raw: Tensor, group: int, smallest: float, lowest: float, highest: float) -> Tensor:
    """Fake-quantized x, its shape and strides; x float32 without gaps in memory; raw (G,) float32."""
    y = torch.empty_like(x)
    if count := x.numel():
        _activation_forward[(triton.cdiv(count, BLOCK),)](
            x, raw, y, count, group, smallest, float(lowest), float(highest), BLOCK=BLOCK
        )
    return y


def activation_backward(
    gradient: Tensor, x: Tensor, raw: Tensor, group: int, smallest: float, lowest: float, highest: float
) -> tuple[Tensor, Tensor]:
    """Gradients of x (shape and strides of x, as ``gradient`` must have) and of all log-scales (G,)."""
    passed, of_log_scale, count = torch.empty_like(x), torch.zeros_like(raw), x.numel()
    if count:
        programs = triton.cdiv(count, BLOCK)
        sums = raw.new_empty(programs)
        ends = smallest, float(lowest), float(highest)
        _activation_backward[(programs,)](gradient, x, raw, passed, sums, count, group, *ends, BLOCK=BLOCK)
        _activation_log_scale[(1,)](
            sums, raw, of_log_scale, programs, group, len(raw), smallest,
            BLOCK=BLOCK, GROUPS=triton.next_power_of_2(len(raw)),
        )  # fmt: skip
    return passed, of_log_scale


def weight_forward(
    source: Tensor, searched: Tensor, offset: Tensor | None, raw: Tensor, smallest: float, ends: tuple[float, float]
) -> Tensor:
    """Dequantized weight, shape and strides of ``source``: the float32 weight, or int8 integers that were chosen.

    Args:
        source: output channels outermost in memory, without gaps; so is ``offset``, with the same strides.
        searched, raw: (out,) float32.
    """
    y = torch.empty_like(source, dtype=torch.float32)
    if source.numel():
        width = source.numel() // len(source)
        _weight_forward[(len(source), triton.cdiv(width, ROW_BLOCK))](
            source, searched, offset, raw, y, width, smallest, float(ends[0]), float(ends[1]),
            BLOCK=ROW_BLOCK, CHOSEN=source.dtype == torch.int8, OFFSET=offset is not None,
        )  # fmt: skip
    return y


def weight_backward(
    gradient: Tensor,
    source: Tensor,
    searched: Tensor,
    offset: Tensor | None,
    raw: Tensor,
    smallest: float,
    ends: tuple[float, float],
    margin: float,
    *,
    learned: bool,
) -> tuple[Tensor | None, Tensor]:
    """Gradients of the offset, None unless ``learned``, and of the log-scales (out,); strides as in ``weight_forward``."""
    of_offset = torch.empty_like(gradient) if learned else None
    of_log_scale = torch.zeros_like(raw)
    if source.numel():
        _weight_backward[(len(source),)](
            gradient, source, searched, offset, raw, of_offset, of_log_scale, source.numel() // len(source),
            smallest, float(ends[0]), float(ends[1]), margin,
            BLOCK=ROW_BLOCK, CHOSEN=source.dtype == torch.int8, OFFSET=offset is not None, LEARNED=learned,
        )  # fmt: skip
    return of_offset, of_log_scale
