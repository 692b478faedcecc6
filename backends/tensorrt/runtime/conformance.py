"""Operation by operation: does a graph compute what the integer simulation computes?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dq_toolchain.backends.common.onnx.pieces import INTEGERS, OUT, Ends, Forced, sites_of, teacher_forced
from dq_toolchain.backends.common.onnx.reading import Quantized, only_user, producer, tensor_of
from dq_toolchain.backends.tensorrt.proof.reading import multiplied
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.metrics import relative_error
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork


@dataclass(frozen=True)
class Comparison:
    """One call, every operation by itself.

    Attributes:
        different: places where an integer differs. places: in all. largest: difference, in integer steps.
        output_error: largest ||graph - simulation|| / ||simulation|| of a product whose integers are all equal.
        worst: the product where it occurs. products: how many were compared so; compared: how many in all.
    """

    different: int
    places: int
    largest: int
    output_error: float
    worst: str
    products: int
    compared: int


def compare(
    path: Path, artifact: Artifact, simulated: SimulatedNetwork, k: int, inputs: Mapping[str, Tensor]
) -> Comparison:
    """Execute the pieces of one graph on what the simulation's operations get at step k; see ``teacher_forced``."""
    return _judge(teacher_forced(path, artifact, simulated, k, inputs, Ends(_first, _whole)))


def _judge(found: Forced) -> Comparison:
    different = places = largest = equal = compared = 0
    error, worst = 0.0, ""
    for name in found.products:
        wanted, flips = found.wanted(name), 0
        for site in sites_of(name):
            distance = (found.values[INTEGERS + site].to(torch.float32) - found.integers[site]).abs()
            flips, places = flips + int((distance > 0).sum()), places + distance.numel()
            largest = max(largest, int(distance.max()))
        different, compared = different + flips, compared + 1
        if flips == 0:
            equal += 1
            got = found.values[OUT + name].to(torch.float32).reshape(wanted.shape)
            error, worst = max((error, worst), (float(relative_error(got, wanted).max()), name))
    return Comparison(different, places, largest, error, worst, equal, compared)


def _first(quantized: Quantized) -> Any:
    return producer(quantized.source, "Div") or quantized.quantize


def _whole(node: Any) -> Any:
    """What a layer gives: behind the product its ratio and factors, and behind these the bias that is no input of the product."""
    out = multiplied(node)
    add = only_user(out, "Add")
    if add is not None and any(tensor_of(value) is not None for value in add.inputs):
        out = add.outputs[0]
    return out
