"""``run`` of every target: a bundle through the whole sampler on this machine, and the device report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dq_toolchain.backends.base import Backend, Execute, Runtime, emulator_of
from dq_toolchain.backends.common.chain import draw_chain
from dq_toolchain.backends.common.sampling import held_out, sample
from dq_toolchain.backends.common.threads import check_threads
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.bundle import Bundle

if TYPE_CHECKING:
    from torch import Tensor


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
    emulator: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Sample held-out seeds and write the report into the folder ``out``; returns the path of report.json.

    Args:
        seeds: run only the first so many; None is all.
        threads: of the runtime, 1-256; None is its own choice.
        steps, guidance: which of the bundle's samplers; None is the calibrated one.
        emulator: execute on the vendor's emulator of the device, for a target that has one.
        progress: called with the network calls done and in all.
    Raises:
        BackendError: the program does not load or execute, the bundle is of another target, or an argument is out of range.
        SamplerError: the bundle does not hold such a sampler.
        ArtifactError: a file of the bundle is damaged.
        ToolchainError: ``out`` cannot be written.
    """
    bundle = bundle.at(steps, guidance)
    reference = held_out(bundle, bundle_folder, backend.describe().name, seeds)
    check_threads(threads)
    if emulator:
        execute, runtime = _on_emulator(backend, bundle, bundle_folder, threads)
    else:
        execute, runtime = backend.open(bundle, bundle_folder, threads)

    def draw(latents: Tensor) -> dict[str, Tensor]:
        return draw_chain(backend, bundle, bundle_folder, reference, execute, latents, threads)

    return sample(bundle, bundle_folder, out, reference, execute, runtime, progress, draw)


def _on_emulator(backend: Backend, bundle: Bundle, folder: Path, threads: int | None) -> tuple[Execute, Runtime]:
    open_emulator, target = emulator_of(backend), backend.describe().name
    if open_emulator is None:
        raise BackendError(f"target {target!r} has no emulator of its device; leave --emulator out")
    if threads is not None:
        raise BackendError("threads cannot be set for an emulator; leave --threads out")
    return open_emulator(bundle, folder)
