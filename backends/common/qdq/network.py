"""The network as these targets get it: integer weights, and Q/DQ around every product.

With functions every site is converted with a placeholder scale of its own, its *tag*; the scales of each step group are
put in its place afterwards. So one conversion serves all step groups, and a tag tells which site an operation belongs to
whatever the converter did to names and order.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from dq_toolchain.backends.common.call import Call
from dq_toolchain.backends.common.qdq.entries import Entry
from dq_toolchain.backends.common.qdq.layer import IntegerLayer
from dq_toolchain.backends.common.qdq.neural_engine import to_channels_first
from dq_toolchain.backends.common.qdq.operators import Operators
from dq_toolchain.backends.common.qdq.settings import QDQSettings
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.models.architectures import fix_positions
from dq_toolchain.toolchain.quant.attention import ATTENTION_OPERANDS, PRODUCT_OPERANDS, ProductAttnProcessor
from dq_toolchain.toolchain.quant.sites import attention_layers, weighted_layers

LUT_BITS = 4
"""Weights of at most so many bits become tables where the recipe asks for tables."""


def build(artifact: Artifact, call: Call, settings: QDQSettings, entry: Entry, operators: Operators) -> nn.Module:
    """The artifact's UNet with Q/DQ at every site: float32, eval, gradients off.

    Args:
        call: whose sizes the program has. entry: what every site does to its tensor.
    Raises:
        BackendError: a transformer block has no form for the layout asked for.
    """
    network = artifact.build_skeleton()
    fix_positions(network, call.sample, call.conditioning)
    if settings.layout == "neural-engine":
        to_channels_first(network)
    for name, layer in list(weighted_layers(network)):
        if name not in artifact.layers:  # kept in float
            continue
        site = artifact.site_index(name)
        bits = artifact.sites[site].weight_bits or 8
        new = IntegerLayer(
            layer,
            artifact.layers[name],
            bits,
            site,
            entry,
            operators,
            lut=settings.lut and bits <= LUT_BITS,
            result=len(artifact.sites) + site if settings.quantize_outputs else None,
            half=settings.precision == "fp16",
        )
        replace(network, name, new)
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


def replace(network: nn.Module, name: str, new: nn.Module) -> None:
    """Put a module in the place of another, in the dictionary of its parent whatever that is."""
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, new)
