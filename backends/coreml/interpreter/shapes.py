"""Operations that move data. Source: MIL operation set, tensor_transformation, tensor_operation and image_resizing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dq_toolchain.backends.common.kernels import moves
from dq_toolchain.backends.coreml.interpreter.registry import integer, integers, operation
from dq_toolchain.toolchain.errors import BackendError


@operation("reshape")
def reshape(x: Tensor, shape: Tensor) -> Tensor:
    """Zero keeps the dimension of the input, -1 is what remains."""
    wanted = [x.shape[i] if n == 0 else n for i, n in enumerate(integers(shape))]
    return x.reshape(wanted)


@operation("transpose")
def transpose(x: Tensor, perm: Tensor) -> Tensor:
    return x.permute(integers(perm))


@operation("expand_dims")
def expand_dims(x: Tensor, axes: Tensor) -> Tensor:
    rank = x.dim() + len(integers(axes))
    for axis in sorted(axis % rank for axis in integers(axes)):
        x = x.unsqueeze(axis)
    return x


@operation("squeeze")
def squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(integers(axes)))


@operation("concat")
def concat(values: Sequence[Tensor], axis: Tensor, interleave: Tensor | bool = False) -> Tensor:
    if bool(interleave):
        raise BackendError("the interpreter of Core ML programs has no interleaved concat; report it")
    return torch.cat(list(values), integer(axis))


@operation("crop")
def crop(x: Tensor, crop_height: Tensor, crop_width: Tensor) -> Tensor:
    (top, bottom), (left, right) = integers(crop_height), integers(crop_width)
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


@operation("stack")
def stack(values: Sequence[Tensor], axis: Tensor) -> Tensor:
    return torch.stack(list(values), integer(axis))


@operation("split")
def split(
    x: Tensor, axis: Tensor, num_splits: Tensor | None = None, split_sizes: Tensor | None = None
) -> tuple[Tensor, ...]:
    if split_sizes is not None:
        return tuple(x.split(integers(split_sizes), integer(axis)))
    assert num_splits is not None
    return tuple(x.chunk(integer(num_splits), integer(axis)))


@operation("slice_by_index")
def slice_by_index(
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None = None,
    begin_mask: Tensor | None = None,
    end_mask: Tensor | None = None,
    squeeze_mask: Tensor | None = None,
) -> Tensor:
    rank = x.dim()

    def mask(value: Tensor | None) -> list[int]:
        return [0] * rank if value is None else integers(value)

    steps = [1] * rank if stride is None else integers(stride)
    index: list[int | slice] = []
    for i, (first, last) in enumerate(zip(integers(begin), integers(end), strict=True)):
        if mask(squeeze_mask)[i]:
            index.append(first)
            continue
        index.append(slice(None if mask(begin_mask)[i] else first, None if mask(end_mask)[i] else last, steps[i]))
    return x[tuple(index)]


@operation("slice_by_size")
def slice_by_size(x: Tensor, begin: Tensor, size: Tensor) -> Tensor:
    pairs = zip(integers(begin), integers(size), strict=True)
    return x[tuple(slice(b, None if n == -1 else b + n) for b, n in pairs)]


@operation("gather")
def gather(
    x: Tensor, indices: Tensor, axis: Tensor | int = 0, batch_dims: Tensor | int = 0, validate_indices: object = None
) -> Tensor:
    if integer(batch_dims) != 0:
        raise BackendError("the interpreter of Core ML programs has no gather with batch_dims; report it")
    dimension = integer(axis) % x.dim()
    picked = x.index_select(dimension, indices.flatten().to(torch.int64))
    return picked.reshape(*x.shape[:dimension], *indices.shape, *x.shape[dimension + 1 :])


@operation("pad")
def pad(x: Tensor, pad: Tensor, mode: str = "constant", constant_val: Tensor | float = 0.0) -> Tensor:
    """MIL lists (begin, end) of the last axes, from the first of them on."""
    return moves.pad(x, moves.pairs(integers(pad)), mode, float(constant_val))


@operation("upsample_nearest_neighbor")
def upsample_nearest_neighbor(
    x: Tensor, scale_factor_height: Tensor | int = 1, scale_factor_width: Tensor | int = 1
) -> Tensor:
    """Whole factors only: of others the specification does not say which pixel is the nearest."""
    factors = [float(factor) for factor in (scale_factor_height, scale_factor_width)]
    if any(factor < 1 or factor != int(factor) for factor in factors):
        raise BackendError(
            "the interpreter of Core ML programs resizes by whole factors only, got "
            f"{factors[0]:g} x {factors[1]:g}; "
            "use sides that are a multiple of the network's downsampling"
        )
    return x.repeat_interleave(int(factors[0]), -2).repeat_interleave(int(factors[1]), -1)


@operation("tile")
def tile(x: Tensor, reps: Tensor) -> Tensor:
    return x.repeat(integers(reps))
