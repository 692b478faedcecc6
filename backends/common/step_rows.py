"""What programs take in the place of the timestep: files of a bundle with a row per network call."""

from __future__ import annotations

from pathlib import Path

from dq_toolchain.toolchain.disk.files import write_tensors
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.bundle_checks import STEP_VECTORS
from dq_toolchain.toolchain.sampler.samplings import Sampling


def write_step_rows(artifact: Artifact, folder: Path, name: str = STEP_VECTORS) -> None:
    """The rows of the artifact's own table, (N, V) float32; nothing if its network takes the timestep.

    Raises:
        ToolchainError: the file cannot be written.
    """
    if artifact.step_rows is not None:
        write_tensors(folder / name, {"step_vectors": artifact.step_rows})


def file_of_rows(artifact: Artifact, sampling: Sampling) -> str | None:
    """Where a bundle holds the rows of another sampling: all of one step count share a file. None: there are no rows."""
    if artifact.step_vectors is None:
        return None
    same = sampling.table.timesteps == artifact.table.timesteps
    return STEP_VECTORS if same else f"step_vectors-{sampling.steps}.safetensors"
