"""A layer with the artifact's integers, as the programs of these targets hold it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dq_toolchain.backends.common.qdq.entries import Entry
from dq_toolchain.backends.common.qdq.operators import WeightOperators
from dq_toolchain.toolchain.formats.artifact import LayerWeights
from dq_toolchain.toolchain.quant.layers import Layer, channel_shape, operation_of


class IntegerLayer(nn.Module):
    """A convolution or Linear with the artifact's integers; its input passes Q/DQ, and its output too if it has a site.

    Args:
        lut: the weights become a table of integers.
        half: in fp16, which does not hold every scale.
        result: column of the output's parameters, None for a float output.
    """

    bias: Tensor | None

    def __init__(
        self,
        layer: Layer,
        weights: LayerWeights,
        bits: int,
        site: int,
        entry: Entry,
        operators: WeightOperators,
        *,
        lut: bool = False,
        result: int | None = None,
        half: bool = False,
    ) -> None:
        super().__init__()
        own, factors = operators.scale_and_factors(weights.weight_scale, lut, half)
        operators.keep_weight(self, weights.weight_q.reshape(layer.weight.shape), own, bits, lut)
        self.factors = [f"factor{number}" for number in range(len(factors))]
        for name, factor in zip(self.factors, factors, strict=True):
            self.register_buffer(name, factor)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())
        self.operation, self.site, self.entry, self.result = operation_of(layer), site, entry, result
        self.operators, self.bits, self.channel_shape = operators, bits, channel_shape(layer)

    def forward(self, x: Tensor, *unused: object) -> Tensor:
        x, ratio = self.entry(x, self.site)
        whole = not self.factors and ratio is None
        y = self.operation(x, self.operators.weight(self, self.bits), self.bias if whole else None)
        for number, name in enumerate(self.factors):
            y = y if number == 0 else self.operators.apart(y)
            y = y * self.get_buffer(name).view(self.channel_shape)
        if ratio is not None:
            y = y * ratio
        if not whole and self.bias is not None:
            y = y + self.bias.view(self.channel_shape)
        return y if self.result is None else self.entry(y, self.result)[0]


def other_than_one(*factors: Tensor) -> tuple[Tensor, ...]:
    """Converters leave out what multiplies by one, as behind a layer of zeros."""
    return tuple(factor for factor in factors if (factor != 1).any())


def table_scale(scale: Tensor) -> Tensor:
    """One scale for a whole table of weights: a power of two near the middle of the channels' scales, 0-dim."""
    return torch.exp2(scale.log2().mean().round())
