"""The trainable network of a setup, with searched weight scales."""

from __future__ import annotations

from torch import Tensor

from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.network.insert import QuantizedNetwork
from dq_toolchain.calibrate.ranges.observer import choose_weight_scale
from dq_toolchain.toolchain.quant.qparams import weight_type
from dq_toolchain.toolchain.recipe.sections import Recipe


def quantize_with(context: Context, scale: Tensor, zero_point: Tensor, recipe: Recipe) -> QuantizedNetwork:
    """The network with the given activation parameters (G, L) and searched weight scales."""
    weights = {
        site.layer: weight_scale(context, site.layer, site.weight_bits)
        for site in context.prepared.sites
        if site.weight_bits is not None
    }
    if context.streaming is not None:
        context.streaming.rest()  # tensors that the network shares are at home
    learned = recipe.calibrate.rounding.endswith("learned") and not recipe.run.offload
    network = QuantizedNetwork(
        context.prepared,
        scale,
        zero_point,
        weights,
        context.group_of_step,
        learned_rounding=learned,
        low_memory=recipe.run.offload,
    )
    for layer in network.layers.values():
        layer.weight_quantizer.spill = context.spill
    if context.streaming is None:
        return network.to(context.device)
    network.stream(context.streaming)
    return network


def weight_scale(context: Context, layer: str, bits: int) -> Tensor:
    """(out,) searched for one layer's weights."""
    if context.streaming is not None:
        context.streaming.bring(context.prepared.network.get_submodule(layer))
    return choose_weight_scale(context.prepared.network.get_parameter(f"{layer}.weight"), weight_type(bits))
