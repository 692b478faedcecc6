"""Golden vectors for the programs on devices: small bundles, what a made-up network answers, and the reports that follow.

    python -m scripts.golden.vectors [--out runtime_samples/golden]

The reports are written by the host's own sampler, so every language is compared with what `dq-toolchain run` does.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from torch import Tensor

from dq_toolchain.backends.base import Runtime
from dq_toolchain.backends.common.sampling import sample
from dq_toolchain.toolchain.disk.files import sha256, write_bytes, write_tensors
from dq_toolchain.toolchain.formats.bundle import RANGES, Bundle, OtherSampling, Port
from dq_toolchain.toolchain.formats.bundle_checks import STEP_VECTORS
from dq_toolchain.toolchain.formats.reference import FILE, Reference
from dq_toolchain.toolchain.formats.report import JSON
from dq_toolchain.toolchain.sampler.conditioning import Conditioning
from dq_toolchain.toolchain.sampler.correction import Correction
from dq_toolchain.toolchain.sampler.probe import probe
from dq_toolchain.toolchain.sampler.rollout import rollout
from dq_toolchain.toolchain.sampler.samplings import Sampling, step_groups_at
from dq_toolchain.toolchain.sampler.step_groups import StepGroups, even_step_groups
from dq_toolchain.toolchain.sampler.table import SamplerTable
from dq_toolchain.toolchain.verdict.limits import limits_for
from scripts.golden.damaged_bundles import write_damaged_bundles
from scripts.golden.network import MadeUpNetwork

OUT = Path("runtime_samples/golden")
SIDE, CALLS, WIDTH, LENGTH = 6, 5, 7, 16


@dataclass(frozen=True)
class Case:
    """One bundle. ``overflow``: the network answers infinity from this execution on. ``corrected``: with a correction.
    ``vectors``: the program takes step vectors in the place of the timestep.
    ``others``: step counts and guidance scales beside the calibrated ones, of which ``chosen`` is run.
    ``axes``: of a sample, behind its channels."""

    scheduler: Any
    channels: int
    seeds: int
    guidance: float = 1.0
    groups: int = 2
    eta: float | None = None
    ranges: bool = False
    overflow: int | None = None
    corrected: bool = False
    vectors: bool = False
    others: tuple[tuple[int, float], ...] = ()
    chosen: tuple[int, float] | None = None
    axes: tuple[int, ...] = (SIDE, SIDE)


CORRECTED, VECTORS, TRAJECTORY = "ddim-corrected", "step-vectors", "trajectory"
CASES = {
    "ddim-guided": Case(DDIMScheduler(clip_sample=False), 1, 3, guidance=2.5, ranges=True),
    "dpm-history": Case(DPMSolverMultistepScheduler(), 3, 2),
    "euler-latents": Case(EulerDiscreteScheduler(), 4, 4, groups=1),
    "ddim-noise": Case(DDIMScheduler(clip_sample=False), 3, 2, eta=0.7, groups=5),
    "overflow": Case(DDIMScheduler(clip_sample=False), 1, 2, overflow=7),
    CORRECTED: Case(DDIMScheduler(clip_sample=False), 3, 2, guidance=1.75, corrected=True),
    VECTORS: Case(DDIMScheduler(clip_sample=False), 1, 2, guidance=1.5, vectors=True),
    # (C, T): three channels, which are no colours here
    TRAJECTORY: Case(DDIMScheduler(clip_sample=False), 3, 2, corrected=True, axes=(LENGTH,)),
}


SAMPLERS = "samplers"
TRAILING = DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
OTHERS = ((2, 2.5), (8, 1.0))
OF_SAMPLERS = {
    "two-steps": Case(TRAILING, 1, 2, guidance=2.5, groups=3, ranges=True, others=OTHERS, chosen=OTHERS[0]),
    "eight-unguided": Case(TRAILING, 1, 2, guidance=2.5, groups=3, others=OTHERS, chosen=OTHERS[1]),
    "two-vectors": Case(TRAILING, 1, 2, guidance=1.5, vectors=True, others=((2, 1.5), (5, 1.0)), chosen=(2, 1.5)),
}
"""In golden/samplers: recordings of runs with --steps and --guidance. At two steps the last step group has none."""


def write_case(case: Case, folder: Path) -> None:
    """The bundle in ``folder``/bundle, replay.safetensors, and the report in ``folder``/expected."""
    shutil.rmtree(folder, ignore_errors=True)
    bundle_folder, expected = folder / "bundle", folder / "expected"
    table = probe(case.scheduler, CALLS) if case.eta is None else probe(case.scheduler, CALLS, eta=case.eta)
    if case.corrected:
        table = replace(table, correction=_correction(case.channels))
    reference = _reference(case, table)
    reference.save(bundle_folder / FILE)
    groups = even_step_groups(table.calls, case.groups)
    samplings = tuple(_sampling(case, one, bundle_folder, table, groups) for one in case.others)
    write_bytes(bundle_folder / "model.bin", b"made up\n")
    shape = (1, case.channels, *case.axes)
    ports = [Port("sample", "float32", shape), Port("timestep", "float32", (1,)), Port("class_labels", "int64", (1,))]
    if case.vectors:
        ports[1] = Port("step_vectors", "float32", (1, WIDTH))
        write_tensors(bundle_folder / STEP_VECTORS, {"step_vectors": _vectors(CALLS)})
    if case.ranges:
        ports.append(Port("ranges", "float32", (1, 4)))
        write_tensors(bundle_folder / RANGES, {"ranges": torch.arange(4.0 * case.groups).reshape(case.groups, 4)})
    names = sorted(path.name for path in bundle_folder.iterdir())
    Bundle(
        target="golden", form="made-up", model_id="made-up", weight_hash="0" * 64, versions={}, program="model.bin",
        inputs=tuple(ports), outputs=(Port("output", "float32", shape),), step_groups=groups,
        methods=("forward",) if case.ranges else tuple(f"steps_g{g}" for g in range(len(groups))), table=table,
        guidance=case.guidance, limits=limits_for(reference), operations=(), sites=(),
        sizes={name: (bundle_folder / name).stat().st_size for name in names},
        files={name: sha256(bundle_folder / name) for name in names},
        steps=CALLS if samplings else None, samplings=samplings).save(bundle_folder)  # fmt: skip
    network, bundle = MadeUpNetwork(case.overflow), Bundle.load(bundle_folder).at(*case.chosen or ())
    reference = bundle.reference(bundle_folder)
    executed = {bundle.method_of_step(k) for k in range(bundle.table.calls)}
    warm = len(executed) * (2 if bundle.guidance != 1.0 else 1)
    calls = 0

    def execute(k: int, x: Tensor, timestep: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        nonlocal calls
        calls += 1
        network.keep = calls > warm  # one execution per method warms up and is no part of the run
        return network(k, x, timestep, conditioning)

    runtime = Runtime("made up", "1", "none", 0.0)
    sample(bundle, bundle_folder, expected, reference, execute, runtime, lambda done, total: None)
    _drop_what_differs_between_machines(expected / JSON)
    recorded = {"inputs": torch.cat(network.inputs), "outputs": torch.cat(network.outputs)}
    time = (
        {"step_vectors": _vectors(bundle.table.calls)[network.steps]}
        if case.vectors
        else {"timesteps": torch.tensor(network.timesteps)}
    )
    write_tensors(folder / "replay.safetensors", recorded | time)


def _vectors(calls: int) -> Tensor:
    """(N, V): every number another one, and none that of another step count."""
    return torch.arange(1.0, calls * WIDTH + 1).reshape(calls, WIDTH) / 8 + (0 if calls == CALLS else calls / 32)


def _sampling(
    case: Case, one: tuple[int, float], folder: Path, calibrated: SamplerTable, groups: StepGroups
) -> OtherSampling:
    """A further sampler of the bundle, its reference written."""
    steps, guidance = one
    table = probe(case.scheduler, steps)
    sampling = Sampling(steps, guidance, table, step_groups_at(table.timesteps, calibrated.timesteps, groups))
    reference = _reference(replace(case, guidance=guidance), table)
    reference.save(folder / sampling.file)
    rows = None
    if case.vectors:
        rows = STEP_VECTORS if steps == CALLS else f"step_vectors-{steps}.safetensors"
        write_tensors(folder / rows, {"step_vectors": _vectors(table.calls)})
    return OtherSampling(sampling, sampling.file, limits_for(reference), rows)


def _correction(channels: int) -> Correction:
    """Another number for every step and channel, none exact in float32, and all far from changing nothing."""

    def rows(first: float, by_step: float, by_channel: float) -> tuple[tuple[float, ...], ...]:
        return tuple(
            tuple(round(first + by_step * k + by_channel * c, 6) for c in range(channels)) for k in range(CALLS)
        )

    return Correction(rows(0.21, 0.05, -0.12), rows(0.81, 0.03, 0.01), rows(-0.11, -0.04, 0.07))


def _reference(case: Case, table: SamplerTable) -> Reference:
    """Rollouts of the formula, and of the formula with a small error and the correction, as "FP32" and "simulation"."""
    generator = torch.Generator().manual_seed(len(str(case.scheduler)))
    shape = (case.seeds, case.channels, *case.axes)
    start = _normal(shape, generator) * table.init_noise_sigma
    noise = _normal((table.calls, *shape), generator) if table.stochastic else None
    labels = torch.arange(case.seeds)
    cond = {"class_labels": labels}
    uncond = {"class_labels": torch.full((case.seeds,), 10)} if case.guidance != 1.0 else {}
    errors = 0.02 * _normal((table.calls, *shape), generator)
    formula = MadeUpNetwork(None)

    def answer(scaled: Tensor, k: int, error: Tensor | float) -> Tensor:
        time = torch.full((case.seeds,), table.timesteps[k])
        out = formula(k, scaled, time, cond)
        if uncond:
            other = formula(k, scaled, time, uncond)
            out = other + case.guidance * (out - other)
        return out + error

    def exact(x: Tensor, k: int) -> Tensor:
        return answer(table.input_scale[k] * x, k, 0.0)

    def simulated(x: Tensor, k: int) -> Tensor:
        correction = table.correction or Correction.identity(table.calls, case.channels)
        return correction.after(answer(correction.before(table.input_scale[k] * x, k), k, errors[k]), k)

    outputs: list[Tensor] = []
    fp32 = rollout(table, exact, start, noise=noise)
    simulation = rollout(table, simulated, start, noise=noise, on_step=lambda k, x, f: outputs.append(f))
    at = torch.stack([exact(simulation[k], k) for k in range(table.calls)])
    return Reference(
        start=start,
        conditioning=Conditioning(cond, uncond),
        step_noise=noise,
        fp32_latents=fp32,
        simulation_latents=simulation,
        simulation_outputs=torch.stack(outputs),
        fp32_outputs_at_simulation=at,
    )


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """float32, the same on every processor: drawn in float64."""
    return torch.randn(shape, generator=generator, dtype=torch.float64).float()


def _drop_what_differs_between_machines(path: Path) -> None:
    data = json.loads(path.read_text())
    data |= {
        "device": "any",
        "versions": {},
        "load_ms": 0,
        "step_ms": [0] * len(data["step_ms"]),
        "peak_memory_bytes": None,
    }
    write_bytes(path, (json.dumps(data, indent=1) + "\n").encode())


def write_damaged(folder: Path) -> None:
    """Files that every reader must refuse, safetensors and JSON, each with the reason as its name."""
    shutil.rmtree(folder, ignore_errors=True)

    def tensors(header: str, body: bytes = b"\0" * 8, length: int | None = None) -> bytes:
        text = header.encode()
        return (len(text) if length is None else length).to_bytes(8, "little") + text + body

    good = '{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    damaged = {
        "shorter-than-its-length.safetensors": b"\x01\x02",
        "header-beyond-the-file.safetensors": tensors(good, length=2**40),
        "header-length-overflows.safetensors": tensors(good, length=2**64 - 1),
        "header-is-no-json.safetensors": tensors("{x"),
        "header-is-a-list.safetensors": tensors("[]"),
        "tensor-beyond-the-file.safetensors": tensors(good, b"\0" * 7),
        "offsets-backwards.safetensors": tensors(good.replace("[0,8]", "[8,0]")),
        "offsets-negative.safetensors": tensors(good.replace("[0,8]", "[-8,0]")),
        "shape-does-not-fit.safetensors": tensors(good.replace("[2]", "[3]")),
        "shape-overflows.safetensors": tensors(good.replace("[2]", "[4294967296,4294967296]")),
        "shape-negative.safetensors": tensors(good.replace("[2]", "[-2,-1]")),
        "unknown-dtype.safetensors": tensors(good.replace("F32", "F99")),
        "unclosed.json": b'{"a": [1, 2',
        "trailing.json": b'{"a": 1} x',
        "bad-escape.json": b'{"a": "\\q"}',
        "bad-number.json": b'{"a": 01e}',
        "too-deep.json": b"[" * 100_000,
        "empty.json": b"",
    }
    for name, data in damaged.items():
        write_bytes(folder / name, data)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out
    for name, case in CASES.items():
        write_case(case, out / name)
    for name, case in OF_SAMPLERS.items():
        write_case(case, out / SAMPLERS / name)
    write_damaged(out / "damaged")
    write_damaged_bundles(out)
