"""The integers that a graph holds of a layer's weights: the artifact's, times what fills their type.

The NPU drops low bits of sums of products (``htp.arithmetic``). Integers that are 16 times as large, with a scale that is 16 times
as small, stand for the same weights, and what is dropped is 16 times as small.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dq_toolchain.toolchain.formats.artifact import Artifact, LayerWeights

NARROW = 4
"""Bits of weights up to which they are INT4, but for small layers."""
SMALL = 0.01
"""Share of all weights that the smallest layers may have together to be INT8 whatever their bits are. In a UNet these are the
layers of most pixels, and the shortcuts around the others."""
WIDTHS = {"INT4": 4, "INT8": 8}


@dataclass(frozen=True)
class Form:
    """Of one layer's weights. ``dtype``: of onnx_ir. ``factor``: of the artifact's integers, a power of two."""

    dtype: str
    factor: int

    def integers(self, weights: LayerWeights) -> Tensor:
        """int8, shape of the weights."""
        return weights.weight_q * self.factor

    def scale(self, weights: LayerWeights) -> Tensor:
        """(out,) float32, exact."""
        return weights.weight_scale / self.factor


def drops_bits(artifact: Artifact) -> bool:
    """Whether sums of this artifact lose bits on the NPU: those of 16-bit activations."""
    return any(site.bits > 8 for site in artifact.sites)


def weight_forms(artifact: Artifact) -> dict[str, Form]:
    """By layer. A convolution to one channel is not taken with INT4."""
    drops = drops_bits(artifact)
    bits = {site.layer: site.weight_bits or 8 for site in artifact.sites if site.operand == "input"}
    sizes = {layer: weights.weight_q.numel() for layer, weights in artifact.layers.items()}
    room, small = SMALL * sum(sizes.values()) if drops else 0, set[str]()
    for layer in sorted(sizes, key=lambda layer: (sizes[layer], layer)):
        room -= sizes[layer]
        if room < 0:
            break
        small.add(layer)

    def form(layer: str, weights: LayerWeights) -> Form:
        narrow = bits[layer] <= NARROW and len(weights.weight_scale) > 1 and layer not in small
        dtype = "INT4" if narrow else "INT8"
        return Form(dtype, 1 << (WIDTHS[dtype] - bits[layer]) if drops else 1)

    return {layer: form(layer, weights) for layer, weights in artifact.layers.items()}
