"""Executes a bundle on this machine through the whole sampler and writes the device report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dq_toolchain.backends.common.sampling import held_out, sample
from dq_toolchain.backends.common.schedule import Schedule
from dq_toolchain.backends.coreml.runtime.device import open_package
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.bundle import Bundle


def run(
    bundle: Bundle,
    bundle_folder: Path,
    out: Path,
    seeds: int | None,
    threads: int | None,
    progress: Callable[[int, int], None],
) -> Path:
    """Sample held-out seeds and write the report; see ``sampling.sample``.

    Raises:
        BackendError: the package does not load or execute, or an argument is out of range.
        ArtifactError: a file of the bundle is damaged.
        ToolchainError: ``out`` cannot be written.
    """
    reference = held_out(bundle, bundle_folder, "coreml", seeds)
    if threads is not None:
        raise BackendError("threads cannot be set for target 'coreml': Core ML chooses them; leave --threads out")
    execute, runtime = open_package(bundle_folder / bundle.program, Schedule.of(bundle, bundle_folder))
    return sample(bundle, bundle_folder, out, reference, execute, runtime, progress)
