"""Names of the tensors that get integer parameters, and of the operations that stay in float.

A site is the input of one convolution (of one or two dimensions, also transposed) or Linear, or one operand of an attention
product. Sites are found by module type, never by model name; what is not a site is listed with the reason.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from diffusers.models.attention_processor import Attention
from torch import nn

from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.quant.layers import LAYERS, Layer, LayerKind
from dq_toolchain.toolchain.quant.qparams import Scheme
from dq_toolchain.toolchain.quant.smoothing import SmoothedConv2d

Kind = LayerKind | Literal["attention"]
KINDS = (*get_args(LayerKind), "attention")
BITS = range(2, 9)
NORMS = (nn.GroupNorm, nn.LayerNorm, nn.BatchNorm2d)
KEPT = "kept in float by name: keep_float in the recipe"
MULTIPLIES = (nn.Conv3d, nn.ConvTranspose3d, nn.Bilinear, nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase)


@dataclass(frozen=True)
class Site:
    """One quantized tensor: ``layer`` is the module's dotted name, ``operand`` is "input", "q", "k", "v" or "probs"."""

    layer: str
    operand: str
    kind: Kind
    bits: int
    scheme: Scheme
    weight_bits: int | None = None

    @property
    def name(self) -> str:
        """E.g. ``mid_block.attentions.0.to_q:input``."""
        return f"{self.layer}:{self.operand}"

    def fault(self) -> str | None:
        """What is wrong with values read from a file, None if nothing is."""
        if self.kind not in KINDS or self.scheme not in get_args(Scheme):
            return f"kind {self.kind!r}, scheme {self.scheme!r}; allowed are {KINDS} and {get_args(Scheme)}"
        if self.bits not in BITS or (self.weight_bits is not None and self.weight_bits not in BITS):
            return f"bits {self.bits!r}, weight bits {self.weight_bits!r}; allowed are 2-8"
        return None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Site:
        return cls(**data)


@dataclass(frozen=True)
class FloatOp:
    """An operation that stays in floating point, and why."""

    layer: str
    kind: str
    reason: str


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
        elif isinstance(module, NORMS):
            found.append(FloatOp(name, type(module).__name__, "normalisation: statistics need float"))
        elif isinstance(module, nn.Embedding):
            found.append(FloatOp(name, "Embedding", "table look-up: no arithmetic"))
        elif isinstance(module, Attention) and not attention_quantized:
            found.append(FloatOp(name, "attention products", 'attention = "float" in the recipe'))
        elif isinstance(module, SmoothedConv2d):
            found.append(FloatOp(name, "channel factor", "smoothing: a multiplication in front of the quantization"))
        elif isinstance(module, MULTIPLIES):
            found.append(FloatOp(name, type(module).__name__, "module type is not supported by the quantizer"))
    return tuple(found)
