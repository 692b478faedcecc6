"""Text encoders and decoders with integer weights and float arithmetic, in the form that these targets share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dq_toolchain.backends.common.qdq.layer import IntegerLayer
from dq_toolchain.backends.common.qdq.network import replace
from dq_toolchain.backends.common.qdq.operators import WeightOperators
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import LayerWeights
from dq_toolchain.toolchain.parts.part import BITS, Part
from dq_toolchain.toolchain.parts.t5 import RmsNorm
from dq_toolchain.toolchain.quant.layers import LAYERS, TRANSPOSED

SMALLEST = 2.0**-8
"""Of what ``ScaledRmsNorm`` divides by: epsilon over its square is an fp16 number."""


def as_it_is(x: Tensor, site: int) -> tuple[Tensor, Tensor | None]:
    """The entry of every layer, whose input stays in float; see ``entries.Entry``."""
    return x, None


class IntegerRows(nn.Module):
    """A token embedding: rows of an int8 table with a scale per row. ids (1, L) -> (1, L, W).

    A factor per row, where fp16 does not hold its scale, is looked up like the row.
    """

    def __init__(self, weights: LayerWeights, operators: WeightOperators, half: bool) -> None:
        super().__init__()
        own, factors = operators.scale_and_factors(weights.weight_scale, False, half)
        operators.keep_weight(self, weights.weight_q, own, BITS, False)
        self.operators, self.factors = operators, [f"factor{number}" for number in range(len(factors))]
        for name, factor in zip(self.factors, factors, strict=True):
            self.register_buffer(name, factor.view(-1, 1))

    def forward(self, ids: Tensor) -> Tensor:
        x = nn.functional.embedding(ids, self.operators.weight(self, BITS))
        for name in self.factors:
            x = x * nn.functional.embedding(ids, self.get_buffer(name))
        return x


class ScaledRmsNorm(nn.Module):
    """T5's norm in a form whose squares cannot overflow in fp16: divided by the largest of a token first."""

    def __init__(self, norm: RmsNorm) -> None:
        super().__init__()
        self.weight, self.epsilon = norm.weight, norm.epsilon

    def forward(self, x: Tensor) -> Tensor:
        largest = x.abs().amax(-1, keepdim=True).clamp(min=SMALLEST)
        scaled = x / largest
        root = torch.rsqrt((scaled * scaled).mean(-1, keepdim=True) + self.epsilon / largest / largest)
        return self.weight * (scaled * root)


def part_network(part: Part, operators: WeightOperators, half: bool) -> nn.Module:
    """The part's module with integer weights, unpacked where they are used: float32, eval, gradients off.

    Args:
        half: it is to be computed in fp16.
    Raises:
        BackendError: a layer is of a kind that these programs do not hold in integers.
    """
    module = part.architecture()
    module.load_state_dict(dict(part.float_parameters), strict=False, assign=True)  # what is left becomes integers
    for name, weights in part.layers.items():
        layer = module.get_submodule(name)
        if isinstance(layer, nn.Embedding):
            replace(module, name, IntegerRows(weights, operators, half))
        elif isinstance(layer, LAYERS) and not isinstance(layer, TRANSPOSED):
            replace(module, name, IntegerLayer(layer, weights, BITS, 0, as_it_is, operators, half=half))
        else:
            raise BackendError(
                f"{part.name}: {name} is a {type(layer).__name__}, which has no integer form here; export with --unet-only"
            )
    for name, norm in list(module.named_modules()) if half else ():
        if isinstance(norm, RmsNorm):
            replace(module, name, ScaledRmsNorm(norm))
    return module.eval().requires_grad_(False)
