"""Other step groups for a finished artifact, for methods that find groups of their own."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.sampler.samplings import step_groups_at
from dq_toolchain.toolchain.sampler.step_groups import StepGroups


def with_step_groups(artifact: Artifact, groups: StepGroups, scale: Tensor, zero_point: Tensor) -> Artifact:
    """The artifact with other step groups, also in its other samplings, whose calls take them by timestep.

    Args:
        groups: of the calls of ``artifact.table``. scale: (G, L) float32. zero_point: (G, L) int32.
    """
    timesteps = artifact.table.timesteps
    samplings = tuple(
        replace(each, step_groups=step_groups_at(each.table.timesteps, timesteps, groups))
        for each in artifact.samplings
    )
    return replace(artifact, step_groups=groups, scale=scale, zero_point=zero_point, samplings=samplings)
