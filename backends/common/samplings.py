"""Other step counts and guidance scales of a bundle: the same program, each with held-out rollouts and limits of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from dq_toolchain.backends.common.step_rows import file_of_rows, write_step_rows
from dq_toolchain.toolchain.formats.artifact import Artifact, load_reference
from dq_toolchain.toolchain.formats.bundle import OtherSampling
from dq_toolchain.toolchain.formats.reference import Reference

Judged: TypeAlias = tuple[Reference, Mapping[str, Any]]
"""The held-out rollouts as the bundle has them, and the limits that follow."""


def other_samplings(
    artifact: Artifact, artifact_folder: Path, folder: Path, judged: Callable[[Artifact, Reference], Judged]
) -> tuple[OtherSampling, ...]:
    """Write a reference file for each of ``artifact.samplings`` into the bundle's folder, and what the program takes in the
    place of the timestep.

    Args:
        judged: what the target does to the held-out rollouts of an artifact; it gets the artifact of each sampler.
    """
    found = []
    for sampling in artifact.samplings:
        other, rows = artifact.at(sampling), file_of_rows(artifact, sampling)
        reference, limits = judged(other, load_reference(artifact_folder, sampling))
        reference.save(folder / sampling.file)
        if rows is not None:
            write_step_rows(other, folder, rows)
        found.append(OtherSampling(sampling, sampling.file, limits, rows))
    return tuple(found)
