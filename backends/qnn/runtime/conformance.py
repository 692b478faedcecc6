"""Operation by operation: does a graph compute what the integer simulation computes?

Operands must be the same integers. A result is quantized behind the product, so it may be the neighbour of what is right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dq_toolchain.backends.common.onnx.pieces import INTEGERS, OUT, Ends, sites_of, teacher_forced
from dq_toolchain.backends.common.onnx.session import open_session
from dq_toolchain.backends.qnn.graph.numbers import numbers_of, offset
from dq_toolchain.backends.qnn.graph.rewrite import RESULT
from dq_toolchain.backends.qnn.proof.reading import read_result
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork


@dataclass(frozen=True)
class Operation:
    """One product of one call.

    Attributes:
        operand_steps: largest difference of an operand's integers. different: share of them that differ.
        result_steps: largest difference of the result from the simulation's, in steps of its quantizer, of values that the
            quantizer does not clip.
    """

    name: str
    operand_steps: int
    different: float
    result_steps: float


def compare(
    path: Path,
    artifact: Artifact,
    simulated: SimulatedNetwork,
    k: int,
    inputs: Mapping[str, Tensor],
    open: Callable[[Path], Any] = open_session,
) -> tuple[Operation, ...]:
    """Execute the pieces of one graph on what the simulation's operations get at step k; see ``teacher_forced``."""
    forced = teacher_forced(path, artifact, simulated, k, inputs, Ends(lambda each: each.quantize, _whole), open)
    group, numbers = artifact.group_of_step[k], numbers_of(artifact)
    found = []
    for name in forced.products:
        distances = [
            forced.values[INTEGERS + site].to(torch.int32)
            - offset(numbers[site].bits)
            - forced.integers[site].to(torch.int32)
            for site in sites_of(name)
        ]
        layer, _, operand = name.partition(":")
        of_result = numbers[f"{layer}:{RESULT.get(operand, 'output')}"]
        scale, zero = of_result.scale[group], of_result.zero_point[group]
        wanted = (forced.wanted(name) / scale + zero).clamp(0, 2**of_result.bits - 1)
        got = forced.values[OUT + name].reshape(wanted.shape) / scale + zero
        found.append(
            Operation(
                name,
                max(int(each.abs().max()) for each in distances),
                float(torch.cat([each.flatten() != 0 for each in distances]).float().mean()),
                float((got - wanted).abs().max()),
            )
        )
    return tuple(found)


def _whole(node: Any) -> Any:
    result = read_result(node)
    return node.outputs[0] if result is None else result.dequantize.outputs[0]
