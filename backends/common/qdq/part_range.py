"""Whether a text encoder or a decoder can be computed in fp16: what it reaches on the reference, with an octave to spare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dq_toolchain.backends.common.fp16_range import watched
from dq_toolchain.backends.common.powers import factored
from dq_toolchain.backends.common.qdq.parts import part_network
from dq_toolchain.toolchain.parts.part import Part
from dq_toolchain.toolchain.quant.qparams import FP16_LARGEST

LIMIT = FP16_LARGEST / 2
"""Prompts and pictures of users reach further than those that were measured."""
WEIGHTS = "int8 weights per channel"


@dataclass(frozen=True)
class Precision:
    """``half``: fp16. ``words``: what pipeline.json says of the program."""

    half: bool
    words: str


@torch.no_grad()
def precision_of(part: Part, calls: Iterable[Mapping[str, Tensor]], half: bool) -> Precision:
    """fp16 where it was asked for and holds what comes up, else fp32, and why.

    Args:
        calls: inputs by name; the part is run with them in float32, in the form that fp16 programs have.
    """
    if not half:
        return Precision(False, f"{WEIGHTS}, fp32 arithmetic")
    beyond = _known(part) or _found(part, calls)
    if not beyond:
        return Precision(True, f"{WEIGHTS}, fp16 arithmetic")
    name, largest = max(beyond.items(), key=lambda each: each[1])
    why = f"{name} reaches {largest:.3g}, fp16 holds at most {FP16_LARGEST:.0f}"
    return Precision(False, f"{WEIGHTS}, fp32 arithmetic: {why}")


def _known(part: Part) -> dict[str, float]:
    """What the part itself says is too large, by layer or parameter."""
    sizes = {name: float(ends.abs().max()) for name, ends in part.ranges.items()}
    sizes |= {f"{name}.weight": float(weights.weight_scale.max()) * 127 for name, weights in part.layers.items()}
    sizes |= {name: float(value.abs().max()) for name, value in part.float_parameters.items() if value.numel()}
    return {name: size for name, size in sizes.items() if not size <= LIMIT}


def _found(part: Part, calls: Iterable[Mapping[str, Tensor]]) -> dict[str, float]:
    """What is too large when it is run, by the innermost module."""
    network = part_network(part, _Unpacked(), half=True)
    with watched(network, {}, LIMIT) as found:
        for call in calls:
            network(*(call[port.name] for port in part.inputs))
    return found


class _Unpacked:
    """``operators.WeightOperators`` that torch executes: factors behind the products as in an fp16 program, numbers in float32."""

    def scale_and_factors(self, scale: Tensor, lut: bool, half: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        of_weight = factored(scale)
        return of_weight.scale, of_weight.factors

    def keep_weight(self, layer: nn.Module, weight_q: Tensor, scale: Tensor, bits: int, lut: bool) -> None:
        layer.register_buffer("weight_q", weight_q)
        layer.register_buffer("weight_scale", scale.reshape(-1, *[1] * (weight_q.dim() - 1)))

    def weight(self, layer: nn.Module, bits: int) -> Tensor:
        return layer.get_buffer("weight_q") * layer.get_buffer("weight_scale")

    def apart(self, y: Tensor) -> Tensor:
        return y
