"""The network in float with the float weights of one layer in memory at a time: its integers are unpacked while it is at work."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from dq_toolchain.toolchain.formats.artifact import Artifact, LayerWeights
from dq_toolchain.toolchain.quant.layers import Layer
from dq_toolchain.toolchain.quant.sites import weighted_layers


def unpacked_in_turn(artifact: Artifact) -> nn.Module:
    """What ``artifact.build_float_unet()`` computes, bit for bit, in a quarter of its memory. Between calls the weights of integer
    layers are on torch's meta device."""
    network = artifact.build_skeleton()
    for name, layer in weighted_layers(network):
        if name in artifact.layers:
            layer.register_forward_pre_hook(partial(_unpack, artifact.layers[name]))
            layer.register_forward_hook(partial(_put, layer.weight), always_call=True)
    return network


def _unpack(weights: LayerWeights, layer: Layer, _inputs: object) -> None:
    with torch._C.DisableTorchFunction():  # what watches a network's operations is not to see this one
        unpacked = weights.dequantized().reshape(layer.weight.shape)
        layer.weight = nn.Parameter(unpacked, requires_grad=False)


def _put(weight: Tensor, layer: Layer, _inputs: object, _out: object) -> None:
    layer.weight = weight
