"""Finds in a network the tensors that get integer parameters, and the operations that stay in float.

A site is the input of one convolution (of one or two dimensions, also transposed) or Linear, or one operand of an attention
product. Sites are found by module type, never by model name; what is not a site is listed with the reason.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from fnmatch import fnmatchcase

from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_processor import Attention
from diffusers.models.normalization import RMSNorm
from torch import nn

from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.quant.layers import LAYERS, Layer
from dq_toolchain.toolchain.quant.site import FROM_TABLE, KEPT, FloatOp
from dq_toolchain.toolchain.quant.smoothing import SmoothedConv2d
from dq_toolchain.toolchain.quant.step_vectors import StepVector

NORMS = (nn.GroupNorm, nn.LayerNorm, nn.BatchNorm2d, nn.RMSNorm, RMSNorm)
MULTIPLIES = (nn.Conv3d, nn.ConvTranspose3d, nn.Bilinear, nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase)


def weighted_layers(network: nn.Module) -> Iterator[tuple[str, Layer]]:
    """Every convolution (of one or two dimensions, also transposed) and Linear with its dotted name, in module order; not those
    of nn.MultiheadAttention, which uses their weights without calling them."""
    inside: tuple[str, ...] = ()
    for name, module in network.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            inside += (f"{name}.",)
        elif isinstance(module, LAYERS) and not name.startswith(inside):
            yield name, module


def attention_layers(network: nn.Module) -> Iterator[tuple[str, Attention]]:
    """Every diffusers attention module with its dotted name, in module order."""
    for name, module in network.named_modules():
        if isinstance(module, Attention):
            yield name, module


def layers_to_keep(network: nn.Module, patterns: Iterable[str]) -> tuple[str, ...]:
    """The weighted layers that a pattern names, itself or a module around it, in module order.

    Raises:
        RecipeError: a pattern names none; the text names it.
    """
    kept: set[str] = set()
    names = [name for name, _ in weighted_layers(network)]
    for pattern in patterns:
        found = {name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")}
        if not found:
            raise RecipeError(
                f"[quantize] keep_float: {pattern!r} names no convolution or linear layer of this network; "
                f"allowed are names of modules, such as {names[0]}, and * for anything"
            )
        kept |= found
    return tuple(name for name in names if name in kept)


def float_operations(network: nn.Module, attention_quantized: bool, kept: Collection[str] = ()) -> tuple[FloatOp, ...]:
    """What stays in float, by name: attention products (unless quantized), norms, embeddings, factors of smoothed
    convolutions, unsupported products, layers that were to be kept."""
    found = []
    for name, module in network.named_modules():
        if name in kept:
            found.append(FloatOp(name, type(module).__name__, KEPT))
        elif isinstance(module, StepVector):
            found.append(FloatOp(name, "StepVector", FROM_TABLE))
        elif isinstance(module, NORMS):
            found.append(FloatOp(name, type(module).__name__, "normalisation: statistics need float"))
        elif isinstance(module, nn.Embedding):
            found.append(FloatOp(name, "Embedding", "table look-up: no arithmetic"))
        elif isinstance(module, Attention) and not attention_quantized:
            found.append(FloatOp(name, "attention products", 'attention = "float" in the recipe'))
        elif isinstance(module, AttentionModuleMixin) and not isinstance(module, Attention):
            found.append(FloatOp(name, "attention products", "joint attention with rotary positions: in float only"))
        elif isinstance(module, SmoothedConv2d):
            found.append(FloatOp(name, "channel factor", "smoothing: a multiplication in front of the quantization"))
        elif isinstance(module, MULTIPLIES):
            found.append(FloatOp(name, type(module).__name__, "module type is not supported by the quantizer"))
    return tuple(found)
