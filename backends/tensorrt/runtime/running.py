"""Executes a bundle on this machine through the whole sampler and writes the device report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dq_toolchain.backends.common.sampling import held_out, sample
from dq_toolchain.backends.tensorrt.runtime.device import open_bundle
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
        BackendError: a graph or engine does not load or execute, or an argument is out of range.
        ArtifactError: a file of the bundle is damaged.
        ToolchainError: ``out`` cannot be written.
    """
    reference = held_out(bundle, bundle_folder, "tensorrt", seeds)
    if threads is not None and not 1 <= threads <= 256:
        raise BackendError(f"threads must be 1-256, got {threads}; change --threads")
    execute, runtime = open_bundle(bundle, bundle_folder, threads)
    return sample(bundle, bundle_folder, out, reference, execute, runtime, progress)
