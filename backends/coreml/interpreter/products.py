"""Operations that multiply and sum. Source: MIL operation set, conv, linear, transformers (iOS18), reduction, pool."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dq_toolchain.backends.common.kernels import moves, products
from dq_toolchain.backends.coreml.interpreter.registry import integer, integers, operation


@operation("conv")
def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Tensor | None = None,
    pad_type: str = "valid",
    pad: Tensor | None = None,
    dilations: Tensor | None = None,
    groups: Tensor | int = 1,
) -> Tensor:
    if pad_type == "custom":
        assert pad is not None
        x = moves.pad(x, moves.pairs(integers(pad)), "constant")
    elif pad_type != "valid":
        raise NotImplementedError(f"pad_type {pad_type}")
    return products.conv(x, weight, bias, _each(strides, x), _each(dilations, x), integer(groups))


@operation("conv_transpose")
def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pad: Tensor | None = None,
    pad_type: str = "valid",
    strides: Tensor | None = None,
    dilations: Tensor | None = None,
    groups: Tensor | int = 1,
    output_shape: Tensor | None = None,
) -> Tensor:
    """weight: (in, out / groups, *kernel); ``pad`` is cut off the result."""
    if pad_type not in ("valid", "custom"):
        raise NotImplementedError(f"pad_type {pad_type}")
    out = products.conv_transpose(x, weight, bias, _each(strides, x), _each(dilations, x), integer(groups))
    if pad is not None and pad_type == "custom":
        out = moves.cut(out, moves.pairs(integers(pad)))
    if output_shape is not None and list(out.shape) != integers(output_shape):
        raise NotImplementedError(f"output_shape {integers(output_shape)} of what is {list(out.shape)}")
    return out


def _each(value: Tensor | None, x: Tensor) -> list[int]:
    """One number per spatial side; 1 where none is given."""
    return [1] * (x.dim() - 2) if value is None else integers(value)


def _axes(value: Tensor | None) -> list[int] | None:
    return None if value is None else integers(value)


@operation("linear")
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return products.linear(x, weight, bias)


@operation("matmul")
def matmul(x: Tensor, y: Tensor, transpose_x: Tensor | bool = False, transpose_y: Tensor | bool = False) -> Tensor:
    return products.matmul(x.mT if bool(transpose_x) else x, y.mT if bool(transpose_y) else y)


@operation("einsum")
def einsum(values: Sequence[Tensor], equation: str) -> Tensor:
    return torch.einsum(equation, *(value.double() for value in values))


@operation("scaled_dot_product_attention")
def attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    mask = attn_mask.double() if attn_mask is not None and attn_mask.is_floating_point() else attn_mask
    return F.scaled_dot_product_attention(query.double(), key.double(), value.double(), mask)


@operation("softmax")
def softmax(x: Tensor, axis: Tensor | int = -1) -> Tensor:
    return products.softmax(x, integer(axis))


@operation("reduce_mean")
def reduce_mean(x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | bool = False) -> Tensor:
    return products.mean(x, _axes(axes), bool(keep_dims))


@operation("reduce_sum")
def reduce_sum(x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | bool = False) -> Tensor:
    return products.total(x, _axes(axes), bool(keep_dims))


@operation("reduce_max")
def reduce_max(x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | bool = False) -> Tensor:
    return products.largest(x, _axes(axes), bool(keep_dims))


@operation("layer_norm")
def layer_norm(
    x: Tensor, axes: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: Tensor | float = 1e-5
) -> Tensor:
    dims, x = integers(axes), x.double()
    centred = x - x.mean(dims, keepdim=True)
    out = centred / (centred.square().mean(dims, keepdim=True) + float(epsilon)).sqrt()
    out = out if gamma is None else out * gamma
    return out if beta is None else out + beta


@operation("batch_norm")
def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: Tensor | float = 1e-5,
) -> Tensor:
    return F.batch_norm(x, mean, variance, gamma, beta, False, 0.0, float(epsilon))


@operation("instance_norm")
def instance_norm(
    x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: Tensor | float = 1e-5
) -> Tensor:
    return F.instance_norm(x, weight=gamma, bias=beta, eps=float(epsilon))


@operation("avg_pool")
def avg_pool(
    x: Tensor,
    kernel_sizes: Tensor,
    strides: Tensor | None = None,
    pad_type: str = "valid",
    pad: Tensor | None = None,
    exclude_padding_from_average: Tensor | bool = False,
    ceil_mode: Tensor | bool = False,
) -> Tensor:
    if (pad_type != "valid" and pad is not None and any(integers(pad))) or bool(ceil_mode):
        raise NotImplementedError("avg_pool with padding or ceil_mode")
    kernel = integers(kernel_sizes)
    return F.avg_pool2d(x, kernel, kernel if strides is None else integers(strides))
