"""Operations that multiply and sum. Source: MIL operation set, conv, linear, transformers (iOS18), reduction, pool."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

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
    spatial = x.dim() - 2
    if pad_type == "custom":
        assert pad is not None
        sizes = integers(pad)
        x = F.pad(x, [n for i in reversed(range(spatial)) for n in sizes[2 * i : 2 * i + 2]])
    elif pad_type != "valid":
        raise NotImplementedError(f"pad_type {pad_type}")
    function = {1: F.conv1d, 2: F.conv2d}[spatial]
    stride = [1] * spatial if strides is None else integers(strides)
    dilation = [1] * spatial if dilations is None else integers(dilations)
    bias = None if bias is None else bias.double()
    out: Tensor = function(x.double(), weight.double(), bias, stride, 0, dilation, integer(groups))
    return out


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
    spatial = x.dim() - 2
    if pad_type not in ("valid", "custom"):
        raise NotImplementedError(f"pad_type {pad_type}")
    function = {1: F.conv_transpose1d, 2: F.conv_transpose2d}[spatial]
    stride = [1] * spatial if strides is None else integers(strides)
    dilation = [1] * spatial if dilations is None else integers(dilations)
    bias = None if bias is None else bias.double()
    out: Tensor = function(x.double(), weight.double(), bias, stride, 0, 0, integer(groups), dilation)
    sizes = [0] * 2 * spatial if pad is None or pad_type == "valid" else integers(pad)
    for axis, (before, after) in enumerate(zip(sizes[::2], sizes[1::2], strict=True), 2):
        out = out.narrow(axis, before, out.shape[axis] - before - after)
    if output_shape is not None and list(out.shape) != integers(output_shape):
        raise NotImplementedError(f"output_shape {integers(output_shape)} of what is {list(out.shape)}")
    return out


@operation("linear")
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(x.double(), weight.double(), None if bias is None else bias.double())


@operation("matmul")
def matmul(x: Tensor, y: Tensor, transpose_x: Tensor | bool = False, transpose_y: Tensor | bool = False) -> Tensor:
    x, y = x.double(), y.double()
    return torch.matmul(x.mT if bool(transpose_x) else x, y.mT if bool(transpose_y) else y)


@operation("einsum")
def einsum(values: Sequence[Tensor], equation: str) -> Tensor:
    return torch.einsum(equation, *(value.double() for value in values))


@operation("scaled_dot_product_attention")
def attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    mask = attn_mask.double() if attn_mask is not None and attn_mask.is_floating_point() else attn_mask
    return F.scaled_dot_product_attention(query.double(), key.double(), value.double(), mask)


@operation("softmax")
def softmax(x: Tensor, axis: Tensor | int = -1) -> Tensor:
    return x.double().softmax(integer(axis))


@operation("reduce_mean")
def reduce_mean(x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | bool = False) -> Tensor:
    return x.double().mean(None if axes is None else integers(axes), keepdim=bool(keep_dims))


@operation("reduce_sum")
def reduce_sum(x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | bool = False) -> Tensor:
    return x.double().sum(None if axes is None else integers(axes), keepdim=bool(keep_dims))


@operation("reduce_max")
def reduce_max(x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | bool = False) -> Tensor:
    return x.amax([] if axes is None else integers(axes), keepdim=bool(keep_dims))


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
