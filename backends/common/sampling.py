"""The sampler around a lowered program, the same for every target that this machine can execute."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dq_toolchain.backends.base import Execute, Runtime
from dq_toolchain.backends.common.machine import device_name, peak_memory
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.bundle import Bundle, bundle_hash
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.formats.report import first_seeds, write_report
from dq_toolchain.toolchain.sampler.conditioning import Conditioning
from dq_toolchain.toolchain.sampler.denoiser import each_output_at
from dq_toolchain.toolchain.sampler.rollout import rollout
from dq_toolchain.toolchain.sampler.table import SamplerTable


@dataclass
class DeviceNetwork:
    """f(x, k) of one seed, batch 1; two executions and a combination per call where there is guidance.

    Attributes:
        conditioning: of this seed, first axis 1.
        step_ms: (k, milliseconds) of every call so far, executions only.
    """

    execute: Execute
    table: SamplerTable
    guidance: float
    conditioning: Conditioning
    step_ms: list[tuple[int, float]] = field(default_factory=list)

    def __call__(self, x: Tensor, k: int) -> Tensor:
        """x[k] (1, C, H, W), the sampler's latent before call k -> f[k] (1, C, H, W), float32."""
        start = time.perf_counter()
        x = self.table.input_scale[k] * x
        correction = self.table.correction
        x = x if correction is None else correction.before(x, k)
        out = self._execute(x, k, self.conditioning.cond)
        if self.guidance != 1.0:
            unconditional = self._execute(x, k, self.conditioning.uncond)
            out = unconditional + self.guidance * (out - unconditional)
        self.step_ms.append((k, (time.perf_counter() - start) * 1e3))
        return out if correction is None else correction.after(out, k)

    def _execute(self, x: Tensor, k: int, keywords: Mapping[str, Tensor]) -> Tensor:
        timestep = torch.tensor([self.table.timesteps[k]], dtype=torch.float32)
        ordered = {name: keywords[name] for name in self.conditioning.cond}
        return self.execute(k, x.to(torch.float32), timestep, ordered)


def held_out(bundle: Bundle, folder: Path, target: str, seeds: int | None) -> Reference:
    """The reference of the first ``seeds`` held-out seeds, None for all.

    Raises:
        BackendError: the bundle is of another target, or there are not so many seeds.
        ArtifactError: a file of the bundle is damaged.
    """
    if bundle.target != target:
        raise BackendError(f"the bundle is for target {bundle.target!r}, this is {target!r}; name that target")
    reference = bundle.reference(folder)
    if seeds is not None and not 1 <= seeds <= reference.seeds:
        raise BackendError(
            f"seeds must be 1-{reference.seeds} (the held-out seeds of the bundle), got {seeds}; change --seeds"
        )
    return first_seeds(reference, seeds or reference.seeds)


@torch.no_grad()
def sample(
    bundle: Bundle,
    bundle_folder: Path,
    out: Path,
    reference: Reference,
    execute: Execute,
    runtime: Runtime,
    progress: Callable[[int, int], None],
    draw: Callable[[Tensor], Mapping[str, Tensor]] = lambda _latents: {},
) -> Path:
    """Sample every seed of the reference, then answer at the simulation's latents; returns the path of report.json.

    Args:
        progress: called with the network calls done and in all.
        draw: makes pictures of the latents (S, C, h, w) at the end.
    Raises:
        BackendError: the program does not execute.
        ToolchainError: ``out`` cannot be written.
    """
    table = bundle.table
    total, done = 2 * table.calls * reference.seeds, 0
    times: dict[int, list[float]] = defaultdict(list)
    latents, outputs = [], []
    if not runtime.emulated:
        _warm_up(bundle, execute, reference)
    for seed in range(reference.seeds):
        only = slice(seed, seed + 1)
        network = DeviceNetwork(execute, table, bundle.guidance, reference.conditioning.select(only))

        def count(*_: object) -> None:
            nonlocal done
            done += 1
            progress(done, total)

        noise = None if reference.step_noise is None else reference.step_noise[:, only]
        latents.append(rollout(table, network, reference.start[only], noise=noise, on_step=count))
        answers = []
        for answer in each_output_at(network, reference.simulation_latents[:, only]):
            answers.append(answer)
            count()
        outputs.append(torch.stack(answers))
        for k, milliseconds in network.step_ms:
            times[k].append(milliseconds)
    step_ms = [None if runtime.emulated else statistics.median(times[k]) for k in range(table.calls)]
    header = _header(bundle, bundle_folder, out, runtime, step_ms)
    run = torch.cat(latents, dim=1)
    return write_report(out, header, run, torch.cat(outputs, dim=1), reference, draw(run[-1]))


def _header(bundle: Bundle, folder: Path, out: Path, runtime: Runtime, step_ms: list[float | None]) -> dict[str, Any]:
    return {
        "target": bundle.target, "runtime": {"name": runtime.name, "version": runtime.version},
        "device": runtime.device or device_name(),
        "versions": {"torch": version("torch"), "python": platform.python_version(), "system": platform.platform()},
        "compute_unit": runtime.unit, "bundle_sha256": bundle_hash(folder),
        "bundle": os.path.relpath(folder.resolve(), out.resolve()), "load_ms": None if runtime.emulated else runtime.load_ms,
        **({"emulated": True} if runtime.emulated else {}), "step_ms": step_ms,
        **({"steps": bundle.steps, "guidance": bundle.guidance} if bundle.samplings else {}),
        "peak_memory_bytes": None if runtime.emulated else peak_memory(),
    }  # fmt: skip


def _warm_up(bundle: Bundle, execute: Execute, reference: Reference) -> None:
    """The first execution of a method allocates and packs; it is not part of a step's time."""
    network = DeviceNetwork(execute, bundle.table, bundle.guidance, reference.conditioning.select(slice(1)))
    methods = [bundle.method_of_step(k) for k in range(bundle.table.calls)]
    for method in dict.fromkeys(methods):
        k = methods.index(method)
        network(reference.start[:1], k)
