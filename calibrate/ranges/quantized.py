"""The trainable network of a setup, with searched weight scales."""

from __future__ import annotations

from torch import Tensor

from dq_toolchain.calibrate.network.insert import QuantizedNetwork
from dq_toolchain.calibrate.prepare.setup import Setup
from dq_toolchain.calibrate.ranges.observer import choose_weight_scale
from dq_toolchain.toolchain.quant.qparams import weight_type
from dq_toolchain.toolchain.recipe.sections import Recipe


def quantize_with(state: Setup, scale: Tensor, zero_point: Tensor, recipe: Recipe) -> QuantizedNetwork:
    """The network with the given activation parameters (G, L) and searched weight scales."""
    weights = {
        site.layer: weight_scale(state, site.layer, site.weight_bits)
        for site in state.prepared.sites
        if site.weight_bits is not None
    }
    learned = recipe.calibrate.rounding == "learned" and not recipe.run.offload
    network = QuantizedNetwork(
        state.prepared, scale, zero_point, weights, state.group_of_step, learned, recipe.run.offload
    )
    return network.to(state.device)


def weight_scale(state: Setup, layer: str, bits: int) -> Tensor:
    """(out,) searched for one layer's weights."""
    return choose_weight_scale(state.prepared.network.get_parameter(f"{layer}.weight"), weight_type(bits))
