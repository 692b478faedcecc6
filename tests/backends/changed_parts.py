"""Parts that differ from another in one thing, for the audits of every target."""

from __future__ import annotations

from dataclasses import replace

import torch

from dq_toolchain.toolchain.formats.artifact import LayerWeights
from dq_toolchain.toolchain.parts.part import Part


def other_integer(part: Part, layer: str) -> Part:
    weights = part.layers[layer]
    weight_q = weights.weight_q.clone()
    weight_q.view(-1)[5] ^= 1
    return _with(part, layer, LayerWeights(weight_q, weights.weight_scale))


def other_scale(part: Part, layer: str) -> Part:
    """One step of fp16 more in one row or channel."""
    weights = part.layers[layer]
    scale = weights.weight_scale.clone()
    scale[1] *= 1 + 2**-10
    return _with(part, layer, LayerWeights(weights.weight_q, scale))


def other_bias(part: Part, layer: str) -> Part:
    name = f"{layer}.bias"
    bias = part.float_parameters[name].clone()
    bias[2] += 0.01
    return replace(part, float_parameters={**part.float_parameters, name: bias})


def in_float(part: Part, layer: str) -> Part:
    """A layer with its weights dequantized."""
    layers = {name: weights for name, weights in part.layers.items() if name != layer}
    weight = part.layers[layer].dequantized()
    return replace(part, layers=layers, float_parameters={**part.float_parameters, f"{layer}.weight": weight})


def smaller(part: Part, layer: str, factor: float) -> Part:
    """A layer all of whose scales are smaller by a power of two, by turns by its square root: fp16 does not hold them."""
    weights = part.layers[layer]
    each = torch.where(torch.arange(len(weights.weight_scale)) % 2 == 0, factor, factor**0.5)
    return _with(part, layer, LayerWeights(weights.weight_q, weights.weight_scale * each))


def _with(part: Part, layer: str, weights: LayerWeights) -> Part:
    return replace(part, layers={**part.layers, layer: weights})
