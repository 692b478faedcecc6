"""Names of the tensors that get integer parameters, and of the operations that stay in float.

A site is the input of one convolution (of one or two dimensions, also transposed) or Linear, or one operand of an attention
product; ``sites`` finds them in a network. On request the result of each of these products is a site as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from dq_toolchain.toolchain.quant.qparams import (
    ACTIVATION_BITS,
    ALLOWED_ACTIVATION_BITS,
    WEIGHT_BITS,
    Scheme,
    activation_type,
)

LayerKind = Literal["conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d", "linear"]
Kind = LayerKind | Literal["attention"]
KINDS = (*get_args(LayerKind), "attention")
RIGHT_OPERANDS = ("k", "v")
"""Second operands of attention products: of 8 bits at most, as the weights of other products are."""
RESULTS = ("output", "scores", "values")
"""Operands that are results: what a layer gives, bias included; q @ k^T before it is scaled; probs @ v."""
KEPT = "kept in float by name: keep_float in the recipe"
FROM_TABLE = "step vector: a row of a table, computed before the first step"


@dataclass(frozen=True)
class Site:
    """One quantized tensor: ``layer`` is the module's dotted name, ``operand`` is "input", "q", "k", "v" or "probs", or for a
    result one of ``RESULTS``."""

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

    @property
    def is_result(self) -> bool:
        """Whether it is what a product gives, not what it takes."""
        return self.operand in RESULTS

    def fault(self) -> str | None:
        """What is wrong with values read from a file, None if nothing is."""
        if self.kind not in KINDS or self.scheme not in get_args(Scheme):
            return f"kind {self.kind!r}, scheme {self.scheme!r}; allowed are {KINDS} and {get_args(Scheme)}"
        if self.bits not in ACTIVATION_BITS or self.weight_bits not in (None, *WEIGHT_BITS):
            return (
                f"bits {self.bits!r}, weight bits {self.weight_bits!r}; allowed are {ALLOWED_ACTIVATION_BITS}, and 2-8"
            )
        if self.bits == 16 and (self.scheme != "symmetric" or self.operand in RIGHT_OPERANDS):
            return (
                f"16 bits with scheme {self.scheme!r} and operand {self.operand!r}; allowed is the symmetric scheme, and no "
                "second operand of an attention product"
            )
        return None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Site:
        return cls(**data)


def results_of(sites: Iterable[Site]) -> tuple[Site, ...]:
    """The results of all products that these sites are operands of, as sites: layers in order, then attention products.

    Bits and scheme are those of the product's first operand.
    """
    operands = [site for site in sites if not site.is_result]
    layers = [replace(site, operand="output", weight_bits=None) for site in operands if site.operand == "input"]
    firsts = {"q": "scores", "probs": "values"}
    products = [replace(site, operand=firsts[site.operand]) for site in operands if site.operand in firsts]
    return (*layers, *products)


def has_wide_activations(sites: Iterable[Site]) -> bool:
    """Whether some have 16 bits: then a runtime computes in fp16 between products, and keeps results in 16 bits."""
    return any(activation_type(site.bits).is_wide for site in sites)


def operand_bits(operand: str, activation_bits: int) -> int:
    """Bits of an attention operand: second operands keep 8 where activations have 16."""
    return min(activation_bits, 8) if operand in RIGHT_OPERANDS else activation_bits


@dataclass(frozen=True)
class FloatOp:
    """An operation that stays in floating point, and why."""

    layer: str
    kind: str
    reason: str
