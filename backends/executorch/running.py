"""Executes a bundle on this machine through the whole sampler and writes the device report."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

from dq_toolchain.backends.executorch.device import Device
from dq_toolchain.backends.executorch.sampler import DeviceNetwork, Schedule
from dq_toolchain.backends.executorch.vendor import LIBRARY, set_threads
from dq_toolchain.toolchain.bundle import RANGES, REMEDY, Bundle, bundle_hash
from dq_toolchain.toolchain.errors import ArtifactError, BackendError
from dq_toolchain.toolchain.files import read_tensors
from dq_toolchain.toolchain.reference import Reference
from dq_toolchain.toolchain.report import first_seeds, write_report
from dq_toolchain.toolchain.rollout import rollout


def schedule_of(bundle: Bundle, folder: Path) -> Schedule:
    """The schedule of a bundle folder. Raises ArtifactError: the ranges are missing or of another shape."""
    ranges = None
    if bundle.form == "sentinel":
        ranges = read_tensors(folder / RANGES, REMEDY).get("ranges")
        want = (len(bundle.step_groups), bundle.inputs[-1].shape[-1])
        if ranges is None or tuple(ranges.shape) != want:
            got = None if ranges is None else tuple(ranges.shape)
            raise ArtifactError(f"{folder / RANGES} must hold 'ranges' of shape {want}, got {got}; {REMEDY}")
    methods = tuple(bundle.method_of_step(k) for k in range(bundle.table.calls))
    return Schedule(bundle.table, bundle.guidance, methods, bundle.group_of_step, ranges)


def _check(bundle: Bundle, seeds: int | None, threads: int | None, reference: Reference) -> None:
    if bundle.target != "executorch":
        raise BackendError(f"the bundle is for target {bundle.target!r}, this is 'executorch'; name that target")
    if seeds is not None and not 1 <= seeds <= reference.seeds:
        raise BackendError(f"seeds must be 1-{reference.seeds} (the held-out seeds of the bundle), got {seeds}; "
                           "change --seeds")
    if threads is not None and not 1 <= threads <= 256:
        raise BackendError(f"threads must be 1-256, got {threads}; change --threads")


@torch.no_grad()
def run(bundle: Bundle, bundle_folder: Path, out: Path, seeds: int | None, threads: int | None,
        progress: Callable[[int, int], None]) -> Path:
    """Sample every held-out seed, then answer at the simulation's latents; returns the path of report.json.

    Args:
        seeds: run only the first so many; None is all.
        threads: of XNNPACK; None is its own choice.
        progress: called with the network calls done and in all.
    Raises:
        BackendError: the program does not load or execute, or an argument is out of range.
        ArtifactError: a file of the bundle is damaged.
        ToolchainError: ``out`` cannot be written.
    """
    reference = bundle.reference(bundle_folder)
    _check(bundle, seeds, threads, reference)
    reference = first_seeds(reference, seeds or reference.seeds)
    if threads is not None:
        set_threads(threads)
    device = Device(bundle_folder / bundle.program, bundle.methods)
    schedule, table = schedule_of(bundle, bundle_folder), bundle.table
    total, done = 2 * table.calls * reference.seeds, 0
    times: dict[int, list[float]] = defaultdict(list)
    latents, outputs = [], []
    _warm_up(device, schedule, reference)
    for seed in range(reference.seeds):
        only = slice(seed, seed + 1)
        network = DeviceNetwork(device, schedule, reference.conditioning.select(only))

        def count(*_: object) -> None:
            nonlocal done
            done += 1
            progress(done, total)

        noise = None if reference.step_noise is None else reference.step_noise[:, only]
        latents.append(rollout(table, network, reference.start[only], noise=noise, on_step=count))
        answers = []
        for k in range(table.calls):
            answers.append(network(reference.simulation_latents[k][only] * table.input_scale[k], k))
            count()
        outputs.append(torch.stack(answers))
        for k, milliseconds in network.step_ms:
            times[k].append(milliseconds)
    header = {
        "target": bundle.target, "runtime": {"name": "ExecuTorch", "version": version(LIBRARY)},
        "device": device_name(),
        "versions": {"torch": version("torch"), "python": platform.python_version(), "system": platform.platform()},
        "compute_unit": "XNNPACK CPU", "bundle_sha256": bundle_hash(bundle_folder),
        "bundle": os.path.relpath(bundle_folder.resolve(), out.resolve()), "load_ms": device.load_ms,
        "step_ms": [statistics.median(times[k]) for k in range(table.calls)], "peak_memory_bytes": peak_memory(),
    }
    return write_report(out, header, torch.cat(latents, dim=1), torch.cat(outputs, dim=1), reference)


def _warm_up(device: Device, schedule: Schedule, reference: Reference) -> None:
    """The first execution of a method allocates and packs; it is not part of a step's time."""
    network = DeviceNetwork(device, schedule, reference.conditioning.select(slice(1)))
    for k in {schedule.method_of_step.index(method): None for method in schedule.method_of_step}:
        network(reference.start[:1] * schedule.table.input_scale[k], k)


def device_name() -> str:
    """Model of the CPU and number of cores, as far as the system tells."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{model}, {psutil.cpu_count() or 1} cores"


def peak_memory() -> int:
    """Largest resident size of this process so far, bytes; the Python runtime and torch are part of it."""
    try:
        import resource
    except ImportError:
        return int(psutil.Process().memory_info().rss)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)

