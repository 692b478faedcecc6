"""Small functions that together hold every operation of programs of ours, and random inputs for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dq_toolchain.backends.coreai.vendor import operators

EXACT, FP32, FP16, SUMMED_IN_FP16 = 0.0, 2e-6, 5e-4, 5e-3
"""Largest ||evaluator - Apple's|| / ||Apple's||. Apple's interpreter sums matrix products of fp16 in fp16."""


@dataclass(frozen=True)
class Case:
    """A function of tensors; constants are buffers of ``module``, so that the converter keeps them."""

    module: nn.Module
    inputs: Sequence[Tensor]
    error: float


class Of(nn.Module):
    """A function of its inputs and of constants, which come last and are buffers."""

    def __init__(self, function: Callable[..., Any], **constants: Tensor) -> None:
        super().__init__()
        self.function, self.names = function, tuple(constants)
        for name, value in constants.items():
            self.register_buffer(name, value)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs, *(getattr(self, name) for name in self.names))


GENERATOR = torch.Generator().manual_seed(0)


def rand(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=GENERATOR).to(dtype)


def whole(low: int, high: int, *shape: int, dtype: torch.dtype = torch.int8) -> Tensor:
    return torch.randint(low, high + 1, shape, generator=GENERATOR).to(dtype)


def exact(function: Callable[..., Any], *inputs: Tensor, **constants: Tensor) -> Case:
    return Case(Of(function, **constants), inputs, EXACT)


def close(function: Callable[..., Any], *inputs: Tensor, **constants: Tensor) -> Case:
    return Case(Of(function, **constants), inputs, FP32)


def half(error: float, function: Callable[..., Any], *inputs: Tensor) -> Case:
    return Case(Of(function), [x.half() for x in inputs], error)


def moves() -> dict[str, Case]:
    """Numbers arrive where they should, unchanged."""
    x, y = rand(1, 6, 5, 8), rand(1, 6, 5, 8)
    rows = torch.tensor([[2, 0], [1, 2]])
    return {
        "reshape, transpose": exact(lambda x: x.reshape(2, 3, 40).permute(2, 0, 1).transpose(-1, -2), x),
        "negative axes": exact(lambda x, y: torch.cat([x.unsqueeze(-2), y.unsqueeze(-2)], -3).squeeze(-2), x, y),
        "slice with strides": exact(lambda x: x[:, 1:6:2, -4:-1, ::3], x),
        "slice outside": exact(lambda x: x[:, :100, 3:, -100:4], x),
        "split": exact(lambda x: torch.cat(list(reversed(x.split([1, 2, 3], 1))), 1), x),
        "chunk with a rest": exact(lambda x: torch.cat(list(reversed(x.chunk(3, -1))), -1), x),
        "stack": exact(lambda x, y: torch.stack([x, y], -1), x, y),
        "expand": exact(lambda x: x[:, :1].expand(3, 6, 5, 8) + 0, x),
        "repeat": exact(lambda x: x.repeat(2, 1, 1, 3), x),
        "flip": exact(lambda x: x.flip(1, -1), x),
        "gather rows": exact(lambda rows, table: table[rows], rows, table=rand(3, 7)),
        "embedding": exact(lambda rows, table: F.embedding(rows, table), rows, table=rand(3, 7)),
        "gather along an axis": exact(lambda x, at: torch.gather(x, 1, at), x[:, :, :, 0], whole(0, 5, 1, 4, 5).long()),
        "where": exact(lambda x, y: torch.where(x > 0.1, x, y), x, y),
        "pad": exact(lambda x: F.pad(x, (1, 2, 0, 3, 4, 0), value=-1.5), x),
        "pad, replicate": exact(lambda x: F.pad(x, (1, 2, 3, 0), mode="replicate"), x),
        "pad, reflect": exact(lambda x: F.pad(x, (3, 2, 1, 4), mode="reflect"), x),
        "nearest, twice": exact(lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"), x),
        "nearest, 5x8 to 7x3": exact(lambda x: F.interpolate(x, size=(7, 3), mode="nearest-exact"), x),
        "fp32 to fp16 and back": exact(lambda x: (x * 1000).half().float() + 1, x),
        "too large for fp16": exact(lambda x: (x * 1e6).half().float(), x),
        "whole numbers": exact(lambda x: (x * 10).to(torch.int32) * 3 - 1, x),
        "whole quotients": exact(lambda x: torch.div((x * 99).to(torch.int32), 7, rounding_mode="trunc"), x),
    }


def sums() -> dict[str, Case]:
    """Products, reductions, norms."""
    x, s = rand(1, 6, 9, 8), rand(1, 6, 20)
    q, k, v = (rand(1, 2, 16, 8) for _ in range(3))
    conv = {"weight": rand(4, 6, 3, 3), "bias": rand(4)}
    group, layer = nn.GroupNorm(2, 6), nn.LayerNorm(8)
    norms = {"weight": rand(6), "bias": rand(6)}
    return {
        "conv": close(lambda x, w, b: F.conv2d(x, w, b, padding=1), x, **conv),
        "conv, stride and dilation": close(lambda x, w, b: F.conv2d(x, w, b, (2, 1), (3, 2), (2, 1)), x, **conv),
        "conv, groups": close(lambda x, w: F.conv2d(x, w, None, padding=(0, 2), groups=3), x, w=rand(9, 2, 3, 3)),
        "conv of a row": close(lambda x, w: F.conv1d(x, w, None, 2, 1, 1, 2), s, w=rand(4, 3, 4)),
        "conv, fp16": half(FP16, lambda x, w: F.conv2d(x, w, padding=1), x, rand(4, 6, 3, 3)),
        "transposed conv": close(lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1, 1, 2), x, w=rand(6, 3, 3, 3), b=rand(6)),
        "transposed conv, dilation": close(
            lambda x, w: F.conv_transpose2d(x, w, None, (2, 1), (0, 1), dilation=(1, 2)), x, w=rand(6, 2, 2, 3)
        ),
        "transposed conv of a row": close(lambda x, w: F.conv_transpose1d(x, w, None, 2, 1), s, w=rand(6, 3, 4)),
        "linear": close(lambda x, w, b: F.linear(x, w, b), x, w=rand(5, 8), b=rand(5)),
        "matmul, broadcast": close(lambda x, y: x @ y, rand(3, 1, 4, 8), rand(2, 8, 5)),
        "matmul, fp16": half(SUMMED_IN_FP16, lambda x, y: x @ y, rand(3, 4, 32), rand(3, 32, 5)),
        "attention": close(lambda q, k, v: F.scaled_dot_product_attention(q, k, v), q, k, v),
        "attention, fp16": half(SUMMED_IN_FP16, lambda q, k, v: F.scaled_dot_product_attention(q, k, v), q, k, v),
        "einsum": close(lambda q, k: torch.einsum("bhqc,bhkc->bkhq", q, k), q, k),
        "softmax": close(lambda x: (4 * x).softmax(1) + (4 * x).softmax(-1), x),
        "softmax, fp16": half(FP16, lambda x: (4 * x).softmax(-2), x),
        "mean": close(lambda x: x.mean((-1, 2)) + x.mean(1, keepdim=True).mean((2, 3)), x),
        "sum, largest": close(lambda x: x.sum(-2) + x.amax((1, 2), keepdim=True)[:, 0], x),
        "group norm": Case(group, [x], FP32),
        "group norm, fp16": Case(nn.GroupNorm(2, 6).half(), [x.half()], FP16),
        "group norm with numbers": close(lambda x, w, b: F.group_norm(x, 3, w, b), x, **norms),
        "layer norm": Case(layer, [x], FP32),
        "average of pools": close(lambda x: F.avg_pool2d(x, 2), x),
    }  # fmt: skip


def elementwise() -> dict[str, Case]:
    x, y, one = 3 * rand(4, 65), rand(65), rand(4, 1)
    return {
        "arithmetic": exact(lambda x, y, one: (x + y) * one - x / y, x, y, one),
        "arithmetic, fp16": half(EXACT, lambda x, y, one: (x + y) * one - x / y, x, y, one),
        "powers": close(lambda x: x**2 + x.abs() ** 0.5 + 2**x, x),
        "extremes": exact(lambda x, y: torch.maximum(x, y) - torch.minimum(x, y) + x.clamp(-0.5, 0.75), x, y),
        "comparisons": exact(lambda x, y: (x > y).float() + 2 * (x == x).float() + 4 * (x != y).float(), x, y),
        "roots": close(lambda x: x.abs().sqrt() + (x.abs() + 0.1).rsqrt() + (x.abs() + 0.1).log(), x),
        "waves": close(lambda x: (100 * x).sin() + (100 * x).cos(), x),
        "exponentials": close(lambda x: x.exp() + x.tanh() + x.sigmoid(), x),
        "silu": close(lambda x: F.silu(4 * x), x),
        "silu, fp16": half(FP16, lambda x: F.silu(4 * x), x),
        "gelu": close(lambda x: F.gelu(x), x),
        "gelu, tanh": close(lambda x: F.gelu(x, approximate="tanh"), x),
        "gelu, fp16": half(FP16, lambda x: F.gelu(x), x),
        "relu, round": exact(lambda x: x.relu() + (x * 2).round(), x),
    }


def quantized() -> dict[str, Case]:
    """Integers are equal, whatever the type around them."""
    core, i8, u8 = operators(), torch.int8, torch.uint8
    ties = torch.arange(-600, 600).float().reshape(1, -1) * 0.25
    x = torch.cat([ties, 40 * rand(1, 1200)])
    z = {"z": torch.tensor(-7, dtype=i8)}
    s, small = torch.tensor(0.5), torch.tensor(6.2e-5)
    channels = {"s": torch.rand(6, generator=GENERATOR) + 0.1, "z": whole(-9, 9, 6)}
    w8, w4, low = whole(-128, 127, 6, 8), whole(-8, 7, 6, 8), whole(-2, 3, 6, 1)
    each = {"scale": torch.rand(6, 1, generator=GENERATOR) + 0.01}
    odd = {"q": whole(-8, 7, 3, 3), "scale": torch.rand(3, 1, generator=GENERATOR) + 0.01}
    blocks = {"scale": torch.rand(3, 2, generator=GENERATOR) + 0.01}
    table, tables = rand(1, 1, 16, 1), rand(3, 1, 16, 1)
    indices = {"w_indices": whole(0, 15, 6, 8, dtype=u8)}
    f = {"x": rand(6, 8)}

    def weight(x: Tensor, q: Tensor, scale: Tensor, zero: Tensor | None = None, dtype: Any = i8) -> Tensor:
        out: Tensor = core.constexpr_blockwise_shift_scale(q, scale, zero, None, dtype)
        return x * out

    def found(x: Tensor, at: Tensor, lut: Tensor, axis: int = 0) -> Tensor:
        out: Tensor = core.lut_to_dense(at, lut, axis)
        return out if x.shape != out.shape else x * out

    return {
        "quantize": exact(lambda x, s: core.quantize(x, s, i8), x, s=s),
        "quantize, zero_point": exact(lambda x, s, z: core.quantize(x, s, i8, z), x, s=s, **z),
        "quantize, uint8": exact(lambda x, s, z: core.quantize(x, s, u8, z), x, s=s, z=torch.tensor(9, dtype=u8)),
        "quantize, small scale": exact(lambda x, s: core.quantize(x, s, i8), x / 4000, s=small),
        "quantize, channels": exact(lambda x, s, z: core.quantize(x, s, i8, z, None, 1), 40 * rand(2, 6, 5), **channels),
        "quantize, fp16": exact(lambda x, s: core.quantize(x, s, i8), (x / 300).half(), s=torch.tensor(0.0013).half()),
        "quantize, smallest value": exact(lambda x, s, m: core.quantize(x, s, i8, None, m), x, s=s, m=torch.tensor(3.7)),
        "dequantize": exact(lambda x, s, z: core.dequantize(core.quantize(x, s, i8, z), s, z), x, s=torch.tensor(0.037), **z),
        "dequantize, fp16": exact(
            lambda x, s, z: core.dequantize(core.quantize(x, s, i8, z), s, z), x.half(), s=torch.tensor(0.037).half(), **z
        ),
        "scale as an input": exact(lambda x, s: core.dequantize(core.quantize(x, s[0, 1], i8), s[0, 1]), x, rand(1, 2).abs()),
        "int8 weights": exact(weight, f["x"], q=w8, **each),
        "int8 weights, offset": close(weight, f["x"], q=w8, **each, z=low),
        "int4 weights": exact(lambda x, q, scale: weight(x, q, scale, None, torch.int4), f["x"], q=w4, **each),  # type: ignore[attr-defined]
        "int4 weights, odd": exact(lambda x, q, scale: weight(x, q, scale, None, torch.int4), rand(3, 3), **odd),  # type: ignore[attr-defined]
        "int8 weights, blocks": exact(weight, f["x"], q=w8, **blocks),
        "int8 weights, fp16": exact(weight, f["x"].half(), q=w8, scale=each["scale"].half()),
        "table": exact(found, f["x"], **indices, w_lut=table),
        "table per block": exact(found, f["x"], **indices, w_lut=tables),
        "table of integers": exact(found, torch.zeros(1), **indices, w_lut=whole(-128, 127, 1, 1, 16, 1)),
        "table of pairs": exact(lambda x, at, lut: found(x, at, lut, 1), torch.zeros(1), **indices, w_lut=rand(1, 1, 16, 2)),
    }  # fmt: skip
