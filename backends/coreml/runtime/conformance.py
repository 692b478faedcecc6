"""Operation by operation: does the package compute what the integer simulation computes?

A flip of one rounding travels through a network and grows, so free-running outputs say little. Here every quantize
operation is compared with the simulation's integers at its site and then *given* them, so that each operation starts
from the simulation's own numbers and an error cannot hide behind an earlier one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dq_toolchain.backends.common.call import OUTPUT
from dq_toolchain.backends.coreml.interpreter.program import Program
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.metrics import relative_error
from dq_toolchain.toolchain.models.architectures import call_network
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork


@dataclass(frozen=True)
class Comparison:
    """One call, teacher-forced.

    Attributes:
        different: places where an integer differs. places: in all. largest: difference, in integer steps.
        worst_site: where it occurs.
        output_error: ||package - simulation|| / ||simulation|| of the network's output.
    """

    different: int
    places: int
    largest: int
    worst_site: str
    output_error: float


def _in_layout(integers: Tensor, like: Tensor) -> Tensor:
    """(B, T, C) as (B, C, 1, T) where the package is in the Neural Engine's layout; otherwise reshaped."""
    turn = integers.dim() == 3 and like.dim() == 4
    return (integers.transpose(1, 2) if turn else integers).reshape(like.shape)


@torch.no_grad()
def compare(
    program: Program,
    sites: Mapping[str, int],
    artifact: Artifact,
    simulated: SimulatedNetwork,
    k: int,
    inputs: Mapping[str, Tensor],
) -> Comparison:
    """Execute one program and the simulation at step k on the same inputs, batch 1.

    Args:
        sites: name of a quantize operation -> column of the artifact, from the audit.
        inputs: sample, timestep and conditioning by name.
    """
    simulated.set_step(k)
    keywords = {name: value for name, value in inputs.items() if name not in ("sample", "timestep", "ranges")}
    with simulated.recording() as integers:
        expected = call_network(simulated, inputs["sample"], inputs["timestep"], keywords)
    different = places = largest = 0
    worst = ""

    def watch(op: Any, value: Tensor) -> Tensor:
        nonlocal different, places, largest, worst
        if op.op_type != "quantize" or sites[op.name] >= len(artifact.sites):
            return value
        site = artifact.sites[sites[op.name]].name
        wanted = _in_layout(integers[site], value)
        distance = (value.to(torch.float32) - wanted).abs()
        different, places = different + int((distance > 0).sum()), places + distance.numel()
        if int(distance.max()) > largest:
            largest, worst = int(distance.max()), site
        return wanted.to(value.dtype)

    out = program(inputs, watch)[OUTPUT]
    return Comparison(different, places, largest, worst, float(relative_error(out, expected)))
