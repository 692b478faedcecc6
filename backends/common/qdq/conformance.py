"""Operation by operation: does the program compute what the integer simulation computes?

A flip of one rounding travels through a network and grows, so free-running outputs say little. Here every quantize
operation is compared with the simulation's integers at its site, and what follows it is *given* them, so that each operation
starts from the simulation's own numbers and an error cannot hide behind an earlier one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.bundle_checks import FIXED_INPUTS
from dq_toolchain.toolchain.metrics import relative_error
from dq_toolchain.toolchain.models.architectures import call_network
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork

Given = Callable[[str, Sequence[int]], Tensor | None]
"""(name of a quantize operation, shape of its result) -> the integers to go on with, float32; None: its own."""
Forced = Callable[[Mapping[str, Tensor], Given], tuple[Mapping[str, Tensor], Tensor]]
"""(inputs by name, given) -> what every quantize operation computed, by name, and the output."""


@dataclass(frozen=True)
class Comparison:
    """One call, teacher-forced.

    Attributes:
        different: places where an integer differs. places: in all. largest: difference, in integer steps.
        worst_site: where it occurs.
        output_error: ||program - simulation|| / ||simulation|| of the network's output.
    """

    different: int
    places: int
    largest: int
    worst_site: str
    output_error: float


def in_layout(integers: Tensor, shape: Sequence[int]) -> Tensor:
    """(B, T, C) as (B, C, 1, T) where the program is in the Neural Engine's layout; otherwise reshaped."""
    turn = integers.dim() == 3 and len(shape) == 4 and shape[2] == 1
    return (integers.transpose(1, 2) if turn else integers).reshape(tuple(shape))


@torch.no_grad()
def compare(
    execute: Forced,
    sites: Mapping[str, int],
    artifact: Artifact,
    simulated: SimulatedNetwork,
    k: int,
    inputs: Mapping[str, Tensor],
) -> Comparison:
    """Execute one program and the simulation at step k on the same inputs, batch 1.

    Args:
        sites: name of a quantize operation -> column of the artifact, from the audit.
        inputs: sample, timestep or step vectors, and conditioning by name.
    """
    simulated.set_step(k)
    keywords = {name: value for name, value in inputs.items() if name not in FIXED_INPUTS}
    time = inputs["step_vectors"] if "step_vectors" in inputs else inputs["timestep"]
    with simulated.recording() as integers:
        expected = call_network(simulated, inputs["sample"], time, keywords)

    def given(name: str, shape: Sequence[int]) -> Tensor | None:
        inside = sites[name] < len(artifact.sites)  # outputs are no sites of the simulation
        return in_layout(integers[artifact.sites[sites[name]].name], shape) if inside else None

    computed, out = execute(inputs, given)
    different = places = largest = 0
    worst = ""
    for name, value in computed.items():
        wanted = given(name, value.shape)
        if wanted is None:
            continue
        distance = (value.to(torch.float32) - wanted).abs()
        different, places = different + int((distance > 0).sum()), places + distance.numel()
        if int(distance.max()) > largest:
            largest, worst = int(distance.max()), artifact.sites[sites[name]].name
    return Comparison(different, places, largest, worst, float(relative_error(out, expected)))
