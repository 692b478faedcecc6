"""``run`` of every target: a bundle through the whole sampler on this machine, and the device report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dq_toolchain.backends.base import Backend
from dq_toolchain.backends.common.sampling import held_out, sample
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.bundle import Bundle

MOST_THREADS = 256


def run(
    backend: Backend,
    bundle: Bundle,
    bundle_folder: Path,
    out: Path,
    *,
    seeds: int | None = None,
    threads: int | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Sample held-out seeds and write the report into the folder ``out``; returns the path of report.json.

    Args:
        seeds: run only the first so many; None is all.
        threads: of the runtime, 1-256; None is its own choice.
        steps, guidance: which of the bundle's samplers; None is the calibrated one.
        progress: called with the network calls done and in all.
    Raises:
        BackendError: the program does not load or execute, the bundle is of another target, or an argument is out of range.
        SamplerError: the bundle does not hold such a sampler.
        ArtifactError: a file of the bundle is damaged.
        ToolchainError: ``out`` cannot be written.
    """
    bundle = bundle.at(steps, guidance)
    reference = held_out(bundle, bundle_folder, backend.describe().name, seeds)
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise BackendError(f"threads must be 1-{MOST_THREADS}, got {threads}; change --threads")
    execute, runtime = backend.open(bundle, bundle_folder, threads)
    return sample(bundle, bundle_folder, out, reference, execute, runtime, progress)
