"""Convolutions on a GPU with channels last in memory, as tensor cores multiply, and nothing in between that turns them back.

A convolution whose weight lies so gives its output so; sums, activations and concatenations follow. torch's GroupNorm on
CUDA does not (up to 2.11 at least): it copies to channels first, and the next convolution copies back.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

LAST = torch.channels_last


def to_channels_last(network: nn.Module, device: torch.device) -> None:
    """Lay out weights of 2-D convolutions with channels last and have group norms keep that, in place; ``device``: of the network.

    Tensors stay shared with whoever shares them. The network's function is the same but for the order of float sums.
    """
    network.to(memory_format=LAST)  # type: ignore[call-overload]
    if norm_keeps_it(device.type):
        return
    for name, module in list(network.named_modules()):
        if type(module) is nn.GroupNorm:
            network.set_submodule(name, GroupNorm(module))


def laid_out(x: Tensor) -> Tensor:
    """What a layer is given, pictures on a GPU with channels last: diffusers puts them first behind attention, and a quantized
    1x1 convolution, whose weight lies alike in both layouts, would leave them so."""
    return x if x.device.type == "cpu" or x.dim() != 4 else x.contiguous(memory_format=LAST)


def to_host(network: nn.Module) -> None:
    """Back to the CPU, in place, with channels first: there results do not depend on where the network was before."""
    if any(parameter.device.type != "cpu" for parameter in network.parameters()):
        network.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]


@functools.cache
def norm_keeps_it(device: str) -> bool:
    """Whether torch's own GroupNorm does on this kind of device."""
    x = torch.zeros(1, 4, 2, 2, device=device).to(memory_format=LAST)
    return nn.functional.group_norm(x, 2).is_contiguous(memory_format=LAST)


class GroupNorm(nn.GroupNorm):
    """A GroupNorm with the parameters of another whose output lies in memory as its input; on the CPU it is torch's own.

    An artifact names what stays in float by its class: this one is called as torch's.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__(norm.num_groups, norm.num_channels, norm.eps, norm.affine, device="meta")
        self.weight, self.bias = norm.weight, norm.bias
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" or not (x.dim() == 4 and x.is_contiguous(memory_format=LAST)):
            return super().forward(x)
        return normalized(x, self.num_groups, self.weight, self.bias, self.eps)


def normalized(x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """GroupNorm of x (B, C, H, W) with channels last, in that layout; statistics in float32."""
    if weight is None or bias is None:
        weight, bias = x.new_ones(x.shape[1]), x.new_zeros(x.shape[1])
    y: Tensor = _GroupNorm.apply(x.float(), groups, weight, bias, eps)  # type: ignore[no-untyped-call]
    return y


class _GroupNorm(torch.autograd.Function):
    """y = a x + b with a, b (B, C, 1, 1), backward in as many passes over x: what autograd would make of the formula takes
    three times the memory.

    With D = C / groups * H * W values in a group, u = sum(gradient * weight) and v = sum(gradient * weight * x) over them:
    dx = a * gradient + p x + q with p = (u * mean - v) * rstd^3 / D and q = -p * mean - u * rstd / D.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        variance, mean = torch.var_mean(x.unflatten(1, (groups, -1)), (2, 3, 4), correction=0)  # (B, groups)
        rstd = (variance + eps).rsqrt_()
        a = _of_channels(rstd, weight) * weight
        b = bias - _of_channels(mean, weight) * a
        ctx.save_for_backward(x, weight, mean, rstd)
        return _affine(x, a, b)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, Tensor | None, Tensor | None, None]:
        x, weight, mean, rstd = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=LAST)
        summed, product = gradient.sum((2, 3)), (gradient * x).sum((2, 3))  # (B, C)
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            u, v = ((each * weight).unflatten(1, (mean.shape[1], -1)).sum(2) for each in (summed, product))
            values = x[0].numel() // mean.shape[1]
            p = (u * mean - v) * rstd**3 / values
            q = -p * mean - u * rstd / values
            of_x = _affine(x, _of_channels(p, weight), _of_channels(q, weight))
            of_x.addcmul_(gradient, (_of_channels(rstd, weight) * weight)[:, :, None, None])
        if ctx.needs_input_grad[2]:
            of_weight = ((product - summed * _of_channels(mean, weight)) * _of_channels(rstd, weight)).sum(0)
        if ctx.needs_input_grad[3]:
            of_bias = summed.sum(0)
        return of_x, None, of_weight, of_bias, None


def _of_channels(of_groups: Tensor, weight: Tensor) -> Tensor:
    """(B, groups) -> (B, C)."""
    return of_groups.repeat_interleave(len(weight) // of_groups.shape[1], dim=1)


def _affine(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """a x + b, a and b (B, C), in the layout of x."""
    return (x * a[:, :, None, None]).add_(b[:, :, None, None])
