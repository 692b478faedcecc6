"""The network as Core ML gets it: integer weights, Q/DQ around them, normalisations that cannot overflow in fp16.

With functions every site is converted with a placeholder scale of its own, its *tag*; ``functions.py`` puts the scales
of each step group in its place. So one conversion serves all step groups, and a tag tells which site an operation
belongs to whatever the converter did to names and order. (``merge.py`` is for the converter that leaves no place for
them: each step group is converted with its own numbers.) With run-time scales the program keeps one reference scale
per site, a power of two, and the step group's ratio to it is an input.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from dq_toolchain.backends.common.powers import SMALLEST_EXPONENT, factored
from dq_toolchain.backends.common.vendors import decomposed
from dq_toolchain.backends.coreml.graph.entries import Entry
from dq_toolchain.backends.coreml.graph.neural_engine import to_channels_first
from dq_toolchain.backends.coreml.settings import Settings
from dq_toolchain.toolchain.formats.artifact import Artifact, LayerWeights
from dq_toolchain.toolchain.quant.attention import ATTENTION_OPERANDS, PRODUCT_OPERANDS, ProductAttnProcessor
from dq_toolchain.toolchain.quant.layers import Layer, channel_shape, operation_of
from dq_toolchain.toolchain.quant.sites import attention_layers, weighted_layers

LUT_BITS = 4
"""Weights of at most so many bits become tables where the recipe asks for tables."""


class IntegerLayer(nn.Module):
    """A convolution or Linear with the artifact's integers; its input passes Q/DQ, and its output too if it has a site.

    Args:
        lut: keep one weight scale, a power of two, for the whole tensor and multiply the result by the rest: weights
            are then a table of integers, which the Neural Engine wants with the scale of a channel behind the product.
        half: in fp16, which does not hold every scale.
        result: column of the output's parameters, None for a float output.
    """

    weight_q: Tensor
    weight_scale: Tensor
    weight_zero: Tensor
    bias: Tensor | None

    def __init__(
        self,
        layer: Layer,
        weights: LayerWeights,
        bits: int,
        site: int,
        entry: Entry,
        lut: bool = False,
        result: int | None = None,
        half: bool = False,
    ) -> None:
        super().__init__()
        scale = weights.weight_scale
        own, factors = scale_and_factors(scale, lut, half)
        self.register_buffer("weight_q", weights.weight_q.reshape(layer.weight.shape).clone())
        self.register_buffer("weight_scale", own.expand(len(scale)).clone())
        self.register_buffer("weight_zero", torch.zeros(len(scale), dtype=torch.int64))
        self.factors = [f"factor{number}" for number in range(len(factors))]
        for name, factor in zip(self.factors, factors, strict=True):
            self.register_buffer(name, factor)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())
        self.operation, self.site, self.entry, self.result = operation_of(layer), site, entry, result
        self.ends = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        self.channel_shape = channel_shape(layer)

    def forward(self, x: Tensor, *unused: object) -> Tensor:
        x, ratio = self.entry(x, self.site)
        ops = decomposed()
        weight = ops.dequantize_per_channel(
            self.weight_q, self.weight_scale, self.weight_zero, 0, *self.ends, torch.int8
        )
        whole = not self.factors and ratio is None
        y = self.operation(x, weight, self.bias if whole else None)
        for name in self.factors:
            y = y * self.get_buffer(name).view(self.channel_shape)
        if ratio is not None:
            y = y * ratio
        if not whole and self.bias is not None:
            y = y + self.bias.view(self.channel_shape)
        return y if self.result is None else self.entry(y, self.result)[0]


def scale_and_factors(scale: Tensor, lut: bool, half: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
    """A layer's scale (out,) as the weight gets it, 0-dim for a table, and factors (out,) that its product is multiplied by."""
    common = table_scale(scale) if lut else scale
    if not half:
        return common, _other_than_one(scale / common) if lut else ()
    if not lut:
        of_weight = factored(scale)
        return of_weight.scale, of_weight.factors
    common = common.clamp_min(2.0**SMALLEST_EXPONENT)
    rest = factored(scale / common)
    return common, _other_than_one(rest.scale, *rest.factors)


def _other_than_one(*factors: Tensor) -> tuple[Tensor, ...]:
    """The converter leaves out what multiplies by one, as behind a layer of zeros."""
    return tuple(factor for factor in factors if (factor != 1).any())


def table_scale(scale: Tensor) -> Tensor:
    """The scale of a table of weights: a power of two near the middle of the channels' scales, 0-dim."""
    return torch.exp2(scale.log2().mean().round())


class LayerNormGroupNorm(nn.Module):
    """GroupNorm as layer_norm over each group: Core ML computes the statistics inside one operation.

    The converter's own form squares in fp16, where deviations above 256 overflow and the group becomes zero.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.groups, self.eps = norm.num_groups, norm.eps
        weight = torch.ones(norm.num_channels) if norm.weight is None else norm.weight.detach()
        bias = torch.zeros(norm.num_channels) if norm.bias is None else norm.bias.detach()
        self.register_buffer("weight", weight.clone())
        self.register_buffer("bias", bias.clone())

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(x.shape[0], self.groups, -1)
        channels = (1, -1, *[1] * (x.dim() - 2))
        normed = F.layer_norm(rows, rows.shape[-1:], eps=self.eps).reshape(x.shape)
        return normed * self.weight.reshape(channels) + self.bias.reshape(channels)


def build(artifact: Artifact, settings: Settings, entry: Entry) -> nn.Module:
    """The artifact's UNet with Q/DQ at every site: float32, eval, gradients off.

    Args:
        entry: what every site does to its tensor.
    Raises:
        BackendError: a transformer block has no form for the layout asked for.
    """
    network = artifact.build_skeleton()
    if settings.layout == "neural-engine":
        to_channels_first(network)
    for name, layer in list(weighted_layers(network)):
        if name not in artifact.layers:  # kept in float
            continue
        site = artifact.site_index(name)
        bits = artifact.sites[site].weight_bits or 8
        lut, result = (
            settings.lut and bits <= LUT_BITS,
            len(artifact.sites) + site if settings.quantize_outputs else None,
        )
        _replace(
            network,
            name,
            IntegerLayer(layer, artifact.layers[name], bits, site, entry, lut, result, settings.precision == "fp16"),
        )
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.GroupNorm):
            _replace(network, name, LayerNormGroupNorm(module))
    columns = {site.name: index for index, site in enumerate(artifact.sites)}
    for name, attention in attention_layers(network):
        if f"{name}:q" in columns:
            attention.operand_sites = {op: columns[f"{name}:{op}"] for op in ATTENTION_OPERANDS}
            attention.set_processor(ProductAttnProcessor(_product(entry)))
    return network.eval().requires_grad_(False)


def _product(entry: Entry) -> Callable[[Attention, str, Tensor, Tensor], Tensor]:
    def product(attention: Attention, which: str, left: Tensor, right: Tensor) -> Tensor:
        first, second = PRODUCT_OPERANDS[which]
        left, left_ratio = entry(left, attention.operand_sites[first])
        right, right_ratio = entry(right, attention.operand_sites[second])
        y = torch.bmm(left, right)
        for ratio in (left_ratio, right_ratio):
            y = y if ratio is None else y * ratio
        return y

    return product


def _replace(network: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, new)
