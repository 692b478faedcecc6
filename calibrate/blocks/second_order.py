"""Weights rounded in closed form: each rounding error is compensated by the weights of its row that are not rounded yet.

GPTQ (Frantar et al. 2023, https://arxiv.org/abs/2210.17323), the fast form of OBQ (Frantar and Alistarh 2022): of all roundings
of a layer it seeks the one that changes outputs least. Then cyclic coordinate descent (QuantEase, Behdin et al. 2023,
https://arxiv.org/abs/2309.01885): integer after integer becomes the best one beside all others as they are.

Ours: columns in the order of the Hessian's diagonal, largest first; a convolution's columns are its input patches; scales are those
that were searched for; and the Hessian of a large layer is cut into blocks (``LARGEST``), which bounds memory and time.
"""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dq_toolchain.toolchain.quant.layers import Layer, OutputFirst

DAMPING = 0.01
"""Added to the Hessian's diagonal, as a share of its mean: GPTQ's."""
BATCH = 64
"""Columns that are rounded before the others hear of it."""
SWEEPS = 3
"""Of the descent over all columns: the first takes 2 to 3 % off a layer's error, the third next to nothing."""
LARGEST = 4096
"""Columns of one block of a Hessian. What is in different blocks is rounded as if inputs were uncorrelated."""

MARGIN = 0.25
"""Of an integer step, between a weight and its integer when rounding is learned from there. At the boundary, 1/2, the first
iterations
would undo what was found; at 0 no weight that was near a boundary would get there."""


def has_patches(layer: nn.Module) -> bool:
    """Whether each output is a product with a patch of inputs, as here; not of transposed convolutions, which stay as searched."""
    return not isinstance(layer, OutputFirst)


def groups_of(layer: Layer) -> int:
    """Channel groups, each with a Hessian of its own."""
    return 1 if isinstance(layer, nn.Linear) else layer.groups


def blocks_of(layer: Layer) -> list[slice]:
    """Columns of each block of the layer's Hessian."""
    columns = layer.weight[0].numel()
    return [slice(begin, min(begin + LARGEST, columns)) for begin in range(0, columns, LARGEST)]


def input_patches(layer: Layer, x: Tensor) -> Tensor:
    """The inputs of each output, in the order of the weight's columns.

    Args:
        x: input of a Linear (B, ..., in) or of a convolution (B, in, *size).
    Returns:
        (B, P, groups, K): P outputs of a channel, K weights each; groups of a Linear: 1.
    """
    if isinstance(layer, nn.Linear):
        return x.reshape(len(x), -1, 1, x.shape[-1])
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    flat = layer.weight.dim() == 3
    lead = (1,) if flat else ()
    kernel, stride, dilation = ((*lead, *value) for value in (layer.kernel_size, layer.stride, layer.dilation))
    x = F.pad(x, _padding(layer))
    patches: Tensor = F.unfold(x[:, :, None] if flat else x, kernel, dilation, 0, stride)
    patches = patches.transpose(1, 2)
    return patches.reshape(*patches.shape[:2], layer.groups, -1)


def outputs_of(layer: Layer, x: Tensor) -> int:
    """P of ``input_patches``: outputs of a channel."""
    if isinstance(layer, nn.Linear):
        return x[0].numel() // x.shape[-1]
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    return prod(_places(layer, x))


def patches_at(layer: Layer, x: Tensor, chosen: Tensor) -> Tensor:
    """``input_patches`` of some outputs. Those of the others are never made: of a convolution they take many times x's memory.

    Args:
        chosen: (n,) int64 of them, on the device of x.
    Returns:
        (B, n, groups, K).
    """
    if isinstance(layer, nn.Linear):
        return x.reshape(len(x), -1, 1, x.shape[-1])[:, chosen]
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    places, before = _places(layer, x), _padding(layer)[-2::-2]
    axes, rest = len(places), chosen
    index, outside = list[Tensor](), torch.zeros((), dtype=torch.bool, device=x.device)
    for axis in reversed(range(axes)):
        rest, place = rest // places[axis], rest % places[axis]
        offsets = torch.arange(layer.kernel_size[axis], device=x.device) * layer.dilation[axis]
        at = (place * layer.stride[axis] - before[axis])[:, None] + offsets
        at = at.view(len(chosen), *(-1 if other == axis else 1 for other in range(axes)))
        size = x.shape[2 + axis]
        index.insert(0, at.clamp(0, size - 1))
        outside = outside | (at < 0) | (at >= size)
    cut: tuple[slice | Tensor, ...] = (slice(None), slice(None), *index)
    patches = x[cut].masked_fill_(outside, 0.0)
    return patches.movedim(2, 1).contiguous().view(len(x), len(chosen), layer.groups, -1)


def _places(layer: nn.Conv1d | nn.Conv2d, x: Tensor) -> list[int]:
    """Outputs along each axis."""
    padding = _padding(layer)
    axes = zip(
        x.shape[2:], padding[-2::-2], padding[::-2], layer.kernel_size, layer.stride, layer.dilation, strict=True
    )
    return [(size + before + after - d * (k - 1) - 1) // s + 1 for size, before, after, k, s, d in axes]


def _padding(layer: nn.Conv1d | nn.Conv2d) -> list[int]:
    """As ``F.pad`` takes it: last axis first, before and after."""
    if layer.padding == "same":
        totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return [side for total in reversed(totals) for side in (total // 2, total - total // 2)]
    sides = (0,) * len(layer.kernel_size) if isinstance(layer.padding, str) else layer.padding
    return [side for each in reversed(sides) for side in (each, each)]


@torch.no_grad()
def rounded(ratio: Tensor, hessians: list[Tensor], lowest: int, highest: int) -> Tensor:
    """Integers of a weight.

    Args:
        ratio: (out, in / groups, *kernel) float32, the weight in integer steps.
        hessians: block by block (``blocks_of``) the sum of x x^T over the inputs x, (groups, columns, columns) float32.
        lowest, highest: of the integers.
    Returns:
        Shape of ``ratio``, float32 integers.
    Raises:
        ValueError: a Hessian is not finite.
    """
    if not all(hessian.isfinite().all() for hessian in hessians):
        raise ValueError("a Hessian is not finite")
    groups = hessians[0].shape[0]
    weight = ratio.flatten(1).unflatten(0, (groups, -1))
    found, begin = [], 0
    for hessian in hessians:
        end = begin + hessian.shape[-1]
        found.append(_rounded_block(weight[..., begin:end], hessian, lowest, highest))
        begin = end
    return torch.cat(found, 2).flatten(0, 1).view_as(ratio)


def _rounded_block(weight: Tensor, hessian: Tensor, lowest: int, highest: int) -> Tensor:
    """weight: (groups, out / groups, K). hessian: (groups, K, K)."""
    order = hessian.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True)
    columns = order[:, None].expand_as(weight)
    given, (damped, factor) = weight.gather(2, columns).double(), _damped(hessian, order)
    made, left = torch.empty_like(given), given.clone()
    for begin in range(0, left.shape[2], BATCH):
        end = min(begin + BATCH, left.shape[2])
        part, own, errors = left[..., begin:end], factor[:, begin:end, begin:end], []
        for column in range(end - begin):
            integer = part[..., column].round().clamp(lowest, highest)
            error = (part[..., column] - integer) / own[:, column, column, None]
            part = part - error[..., None] * own[:, None, column]  # columns before this one are zero there
            made[..., begin + column] = integer
            errors.append(error)
        left[..., end:] -= torch.stack(errors, 2) @ factor[:, begin:end, end:]
    _descend(given, made, damped, lowest, highest)
    return torch.empty_like(weight).scatter_(2, columns, made.to(weight.dtype))


def _descend(given: Tensor, made: Tensor, hessian: Tensor, lowest: int, highest: int) -> None:
    """Lower (given - made) H (given - made)' by changing one column of ``made`` after the other."""
    slope = (given - made) @ hessian
    for _ in range(SWEEPS):
        for begin in range(0, made.shape[2], BATCH):
            end = min(begin + BATCH, made.shape[2])
            part, own = slope[..., begin:end].clone(), hessian[:, begin:end, begin:end]
            before = made[..., begin:end].clone()
            for column in range(end - begin):
                integer = before[..., column] + part[..., column] / own[:, column, column, None]
                integer = integer.round_().clamp_(lowest, highest)
                part -= (integer - before[..., column])[..., None] * own[:, None, column]
                made[..., begin + column] = integer
            slope -= (made[..., begin:end] - before) @ hessian[:, begin:end]


def _damped(hessian: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """The damped Hessian with columns in ``order``, and the upper Cholesky factor of its inverse, float64.

    Sums in float32 of inputs with outliers may need more damping than usual, which is doubled until there is a factor.
    """
    h = hessian.double().gather(1, order[..., None].expand_as(hessian)).gather(2, order[:, None].expand_as(hessian))
    mean = h.diagonal(dim1=1, dim2=2).mean(1)
    # inputs that are always zero leave their weights free; so do those of a layer that is never given anything else
    damping = torch.where(mean > 0, DAMPING * mean, torch.ones_like(mean))
    while True:
        damped = h + damping[:, None, None] * torch.eye(h.shape[1], dtype=h.dtype, device=h.device)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed.any():
            break
        damping = torch.where(failed > 0, 2 * damping, damping)
    factor: Tensor = torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)
    return damped, factor
