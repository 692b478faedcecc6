"""Parts of a diffusers UNet written in operations that XNNPACK takes, so that the network is not cut into pieces.

The functions are unchanged (1e-5 against diffusers, tested); used for the integer program and for the FP32 one.
Source: measured in backends/executorch.md: every portable operation between convolutions costs a layout change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import Timesteps
from diffusers.models.normalization import RMSNorm
from diffusers.models.transformers.transformer_flux import FluxAttention
from diffusers.models.transformers.transformer_flux2 import Flux2Attention, Flux2ParallelSelfAttention
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from dq_toolchain.backends.executorch.graph.attention import (
    DelegatedParallelAttention,
    DelegatedRotaryAttention,
    delegated,
    quarter_turn,
)
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.quant.split import SplitConv2d


class DelegatedGroupNorm(nn.Module):
    """GroupNorm as means over planes, then a small product that averages over the channels of a group.

    Takes (B, C, H, W) or (B, C, T). The statistics are kept in three dimensions: XNNPACK transposes every tensor of
    four dimensions to channels-last and back.
    """

    weight: Tensor
    bias: Tensor
    eps: Tensor
    average: Tensor

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.channels, self.groups = norm.num_channels, norm.num_groups
        width = self.channels // self.groups
        weight = torch.ones(self.channels) if norm.weight is None else norm.weight.detach()
        bias = torch.zeros(self.channels) if norm.bias is None else norm.bias.detach()
        self.register_buffer("weight", weight.reshape(1, self.groups, width).clone())
        self.register_buffer("bias", bias.reshape(1, -1, 1, 1).clone())
        self.register_buffer("eps", torch.full((1, 1, 1), norm.eps))
        self.register_buffer("average", torch.full((1, width, width), 1 / width))

    def _group_mean(self, x: Tensor) -> Tensor:
        """Mean of every group, repeated for its channels: (B, C, H, W) -> (B, groups, C / groups)."""
        batch, width = x.shape[0], self.channels // self.groups
        mean = torch.bmm(x.mean([2, 3], keepdim=True).reshape(1, batch * self.groups, width), self.average)
        return mean if batch == 1 else mean.reshape(batch, self.groups, width)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 3:
            return self.forward(x.unsqueeze(-1)).squeeze(-1)
        shape = (x.shape[0], self.channels, 1, 1)
        centred = x - self._group_mean(x).reshape(shape)
        factor = torch.rsqrt(self._group_mean(centred * centred) + self.eps) * self.weight
        return centred * factor.reshape(shape) + self.bias


class DelegatedRowNorm(DelegatedGroupNorm):
    """GroupNorm of a network of rows, (B, C, T), with a group's numbers as an image of one channel: no tensor of four dimensions
    but the one whose mean is taken. Other shapes as its base class."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 3:
            return super().forward(x)
        batch, channels, length = x.shape
        rows = x.reshape(batch * self.groups, channels // self.groups, length)
        centred = rows - self._row_mean(rows)
        normed = (centred * torch.rsqrt(self._row_mean(centred * centred) + self.eps)).reshape(x.shape)
        return normed * self.weight.reshape(1, channels, 1) + self.bias.reshape(1, channels, 1)

    def _row_mean(self, rows: Tensor) -> Tensor:
        """(N, C, T) -> (N, 1, 1)."""
        count, channels, length = rows.shape
        return rows.reshape(count, 1, channels * length, 1).mean([2, 3], keepdim=True).reshape(count, 1, 1)


class DelegatedLayerNorm(nn.Module):
    """LayerNorm over the last axis of (B, T, C), with the tokens as images of one channel."""

    weight: Tensor
    bias: Tensor
    eps: Tensor

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        (self.channels,) = norm.normalized_shape
        weight = torch.ones(self.channels) if norm.weight is None else norm.weight.detach()
        bias = torch.zeros(self.channels) if norm.bias is None else norm.bias.detach()
        self.register_buffer("weight", weight.reshape(1, 1, -1).clone())
        self.register_buffer("bias", bias.reshape(1, 1, -1).clone())
        self.register_buffer("eps", torch.full((1, 1, 1), norm.eps))

    def _mean(self, x: Tensor) -> Tensor:
        batch, tokens, channels = x.shape
        return x.reshape(batch * tokens, 1, channels, 1).mean([2, 3], keepdim=True).reshape(batch, tokens, 1)

    def forward(self, x: Tensor) -> Tensor:
        centred = x - self._mean(x)
        return centred * torch.rsqrt(self._mean(centred * centred) + self.eps) * self.weight + self.bias


class DelegatedRMSNorm(nn.Module):
    """RMSNorm over the last axis of (B, T, C), with the tokens as images of one channel."""

    weight: Tensor
    eps: Tensor

    def __init__(self, norm: RMSNorm | nn.RMSNorm) -> None:
        super().__init__()
        (channels,) = norm.dim if isinstance(norm, RMSNorm) else norm.normalized_shape
        if norm.eps is None:
            raise BackendError(
                "an RMSNorm without eps is not supported by target 'executorch'; export for another target"
            )
        weight = torch.ones(channels) if norm.weight is None else norm.weight.detach()
        self.register_buffer("weight", weight.reshape(1, 1, -1).clone())
        self.register_buffer("eps", torch.full((1, 1, 1), norm.eps))

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, channels = x.shape
        mean = (x * x).reshape(batch * tokens, 1, channels, 1).mean([2, 3], keepdim=True).reshape(batch, tokens, 1)
        return x * torch.rsqrt(mean + self.eps) * self.weight


class DelegatedUpsample(nn.Module):
    """Nearest-neighbour x2 by broadcast products with ones, then the layer's own convolution."""

    twice_columns: Tensor
    twice_rows: Tensor

    def __init__(self, conv: nn.Module | None) -> None:
        super().__init__()
        self.conv = conv
        self.register_buffer("twice_columns", torch.ones(1, 2, 1))
        self.register_buffer("twice_rows", torch.ones(1, 2, 1))

    def forward(self, x: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        batch, channels, height, width = x.shape
        if output_size is not None and tuple(output_size) != (2 * height, 2 * width):
            raise BackendError(
                f"the picture's side must be a multiple of the UNet's total downsampling: {height}x"
                f"{width} cannot be doubled to {tuple(output_size)}; use such a size"
            )
        x = x.permute(0, 2, 3, 1).reshape(batch * height * width, 1, channels) * self.twice_columns
        x = x.reshape(batch * height, 1, 2 * width * channels) * self.twice_rows
        x = x.reshape(batch, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)
        out: Tensor = x if self.conv is None else self.conv(x)
        return out


class DelegatedSplitConv(nn.Module):
    """SplitConv2d with slices in place of ``split``, which XNNPACK does not take."""

    def __init__(self, split: SplitConv2d) -> None:
        super().__init__()
        self.channels, self.parts = split.channels, split.parts

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.parts[0](x[:, : self.channels[0]])
        start = self.channels[0]
        for part, channels in zip(list(self.parts)[1:], self.channels[1:], strict=True):
            total, start = total + part(x[:, start : start + channels]), start + channels
        return total


class DelegatedGEGLU(nn.Module):
    """GEGLU with slices in place of ``chunk``."""

    def __init__(self, feed_forward: GEGLU) -> None:
        super().__init__()
        self.proj = feed_forward.proj
        self.middle = feed_forward.proj.out_features // 2

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x)
        out: Tensor = x[..., : self.middle] * nn.functional.gelu(x[..., self.middle :])
        return out


class DelegatedTimesteps(nn.Module):
    """The sinusoidal embedding with its frequencies as a constant: (B,) -> (B, channels)."""

    frequencies: Tensor

    def __init__(self, embedding: Timesteps) -> None:
        super().__init__()
        half = embedding.num_channels // 2
        exponent = -math.log(10000) * torch.arange(half, dtype=torch.float32) / (half - embedding.downscale_freq_shift)
        self.register_buffer("frequencies", torch.exp(exponent).reshape(1, -1))
        self.scale, self.flip, self.odd = embedding.scale, embedding.flip_sin_to_cos, embedding.num_channels % 2

    def forward(self, timesteps: Tensor) -> Tensor:
        angles = timesteps.reshape(-1, 1) * self.frequencies
        if self.scale != 1:
            angles = angles * self.scale
        parts = [torch.cos(angles), torch.sin(angles)] if self.flip else [torch.sin(angles), torch.cos(angles)]
        out = torch.cat(parts, dim=-1)
        return torch.nn.functional.pad(out, (0, 1, 0, 0)) if self.odd else out


def _replacement(module: nn.Module, of_rows: bool) -> nn.Module | None:
    if isinstance(module, nn.GroupNorm):
        return DelegatedRowNorm(module) if of_rows else DelegatedGroupNorm(module)
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
        return DelegatedLayerNorm(module)
    if isinstance(module, nn.RMSNorm) and len(module.normalized_shape) == 1:
        return DelegatedRMSNorm(module)
    if isinstance(module, RMSNorm) and len(module.dim) == 1 and module.bias is None:
        return DelegatedRMSNorm(module)
    if isinstance(module, SplitConv2d):
        return DelegatedSplitConv(module)
    if isinstance(module, GEGLU):
        return DelegatedGEGLU(module)
    if isinstance(module, Timesteps):
        return DelegatedTimesteps(module)
    if (
        type(module) is Upsample2D
        and module.norm is None
        and module.name == "conv"
        and module.interpolate
        and not module.use_conv_transpose
    ):
        return DelegatedUpsample(module.conv if module.use_conv else None)
    return None


ROTARY = (FluxAttention, Flux2Attention, Flux2ParallelSelfAttention)


def rewrite(network: nn.Module) -> nn.Module:
    """Replace, in place, what XNNPACK would not take; the function is the same to 1e-5. Module names of layers stay.

    Raises:
        BackendError: an attention block has parts that no UNet of diffusers' sampling path uses here.
    """
    of_rows = any(isinstance(module, nn.Conv1d) for module in network.modules())
    for name, module in list(network.named_modules()):
        new = _replacement(module, of_rows)
        if new is not None:
            network.set_submodule(name, new)
        if isinstance(module, ROTARY):
            channels = module.head_dim
            module.register_buffer("score_scale", torch.full((1, 1, 1), channels**-0.5), persistent=False)
            module.register_buffer("turn", quarter_turn(channels), persistent=False)
            parallel = isinstance(module, Flux2ParallelSelfAttention)
            module.set_processor(DelegatedParallelAttention() if parallel else DelegatedRotaryAttention())
        elif isinstance(module, AttentionModuleMixin) and not isinstance(module, Attention):
            raise BackendError(
                f"{name} is a {type(module).__name__}, whose attention target 'executorch' does not compute; export for another "
                "target"
            )
        if isinstance(module, Attention):
            module.register_buffer("score_scale", torch.full((1, 1, 1), module.scale), persistent=False)
            module.set_processor(delegated(name, module))
            if isinstance(module.processor, DelegatedRotaryAttention):
                module.register_buffer("turn", quarter_turn(module.inner_dim // module.heads), persistent=False)
    return network.eval()
