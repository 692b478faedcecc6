"""Executes a bundle on this machine through the whole sampler and writes the device report."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from dq_toolchain.backends.common.sampling import Runtime, held_out, sample
from dq_toolchain.backends.common.schedule import Schedule
from dq_toolchain.backends.executorch.runtime.device import Device
from dq_toolchain.backends.executorch.runtime.sampler import executor
from dq_toolchain.backends.executorch.vendor import LIBRARY, set_threads
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

    Args:
        seeds: run only the first so many; None is all.
        threads: of XNNPACK; None is its own choice.
    Raises:
        BackendError: the program does not load or execute, or an argument is out of range.
        ArtifactError: a file of the bundle is damaged.
        ToolchainError: ``out`` cannot be written.
    """
    reference = held_out(bundle, bundle_folder, "executorch", seeds)
    if threads is not None:
        if not 1 <= threads <= 256:
            raise BackendError(f"threads must be 1-256, got {threads}; change --threads")
        set_threads(threads)
    device = Device(bundle_folder / bundle.program, bundle.methods)
    runtime = Runtime("ExecuTorch", version(LIBRARY), "XNNPACK CPU", device.load_ms)
    execute = executor(device, Schedule.of(bundle, bundle_folder))
    return sample(bundle, bundle_folder, out, reference, execute, runtime, progress)
