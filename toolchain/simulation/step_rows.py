"""Step vectors of an artifact for other timesteps than it was calibrated at: other tables of steps of the same network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.quant.step_vectors import StepVectors
from dq_toolchain.toolchain.quant.time_path import find_time_path
from dq_toolchain.toolchain.sampler.denoiser import Denoiser


@torch.no_grad()
def step_vectors_at(artifact: Artifact, reference: Reference, timesteps: Sequence[float]) -> StepVectors:
    """The artifact's step vectors at these timesteps, computed as the FP32 network computes them.

    It takes one pass of the network; what leads to the rows is then done again for every timestep.

    Args:
        reference: of the artifact; its first seed is what the network is run on.
    Raises:
        ArtifactError: the artifact has no step vectors, or its network is another one.
    """
    given = artifact.step_vectors
    if given is None:
        raise ArtifactError(
            "this artifact has no step vectors: its network takes any timestep; calibrate with step_vectors = true"
        )
    conditioning = reference.conditioning.select(slice(1))

    def run(network: nn.Module) -> Tensor:
        return Denoiser(network, artifact.table.uncorrected, conditioning, artifact.guidance)(reference.start[:1], 0)

    path = find_time_path(artifact.build_with_timestep(), run)
    if path.vectors != given.vectors:
        raise ArtifactError(
            "the artifact's step vectors are not where its network takes in time now; calibrate again with this version"
        )
    return replace(given, timesteps=torch.tensor(timesteps, dtype=torch.float32), rows=path.rows(timesteps))
