"""Operations that multiply and sum: in float64, so that no order of summation shows. Results are float64, to be rounded."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], dilation: Sequence[int], groups: int
) -> Tensor:
    """Without padding. x: (N, C, *spatial), one or two spatial sides. weight: (out, C / groups, *kernel)."""
    function = {1: F.conv1d, 2: F.conv2d}[x.dim() - 2]
    bias = None if bias is None else bias.double()
    out: Tensor = function(x.double(), weight.double(), bias, tuple(stride), 0, tuple(dilation), groups)
    return out


def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    output_padding: Sequence[int] = (0,),
) -> Tensor:
    """Nothing cut off. weight: (C, out / groups, *kernel). output_padding: rows of zeros, then the bias, at the end."""
    function = {1: F.conv_transpose1d, 2: F.conv_transpose2d}[x.dim() - 2]
    bias = None if bias is None else bias.double()
    out: Tensor = function(
        x.double(), weight.double(), bias, tuple(stride), 0, tuple(output_padding), groups, tuple(dilation)
    )
    return out


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x: (..., in). weight: (out, in)."""
    return F.linear(x.double(), weight.double(), None if bias is None else bias.double())


def matmul(x: Tensor, y: Tensor) -> Tensor:
    """Leading axes broadcast."""
    return torch.matmul(x.double(), y.double())


def softmax(x: Tensor, axis: int) -> Tensor:
    return x.double().softmax(axis)


def mean(x: Tensor, axes: list[int] | None, keep_axes: bool) -> Tensor:
    return x.double().mean(axes, keepdim=keep_axes)


def total(x: Tensor, axes: list[int] | None, keep_axes: bool) -> Tensor:
    return x.double().sum(axes, keepdim=keep_axes)


def largest(x: Tensor, axes: list[int] | None, keep_axes: bool) -> Tensor:
    """Exact, in the type of x."""
    return x.amax([] if axes is None else axes, keepdim=keep_axes)
