"""Emulated devices for the judging tests: correct ones that round elsewhere, and ones with planted damage."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dq_toolchain.toolchain.disk.files import sha256, write_bytes
from dq_toolchain.toolchain.formats.artifact import Artifact, LayerWeights
from dq_toolchain.toolchain.formats.bundle import Bundle, Operation, Port, bundle_hash
from dq_toolchain.toolchain.formats.reference import FILE, Reference
from dq_toolchain.toolchain.formats.report import write_report
from dq_toolchain.toolchain.formats.site_rows import site_rows
from dq_toolchain.toolchain.sampler.conditioning import Conditioning
from dq_toolchain.toolchain.sampler.denoiser import Denoiser
from dq_toolchain.toolchain.sampler.rollout import rollout
from dq_toolchain.toolchain.sampler.table import SamplerTable
from dq_toolchain.toolchain.simulation.network import Mode, SimulatedLayer, SimulatedNetwork
from dq_toolchain.toolchain.verdict.limits import limits_for, twin_outputs
from tests.tiny_artifacts import tiny_artifact, tiny_reference

STEPS, GROUPS, SEEDS = 8, 4, 16
Run = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Case:
    """An artifact, its held-out reference and the limits with and without a twin."""

    artifact: Artifact
    reference: Reference
    limits: dict[str, Any]
    limits_without_twin: dict[str, Any]


@cache
def case(seed: int = 0, guidance: float = 1.0, weight_bits: int = 8, seeds: int = SEEDS) -> Case:
    artifact, unet = tiny_artifact(STEPS, GROUPS, seed=seed, weight_bits=weight_bits)
    artifact = dataclasses.replace(artifact, guidance=guidance)
    reference = tiny_reference(artifact, unet, seeds)
    twin = twin_outputs(artifact, reference)
    return Case(artifact, reference, limits_for(reference, twin), limits_for(reference))


@torch.no_grad()
def run(
    artifact: Artifact,
    reference: Reference,
    *,
    mode: Mode = "integer",
    nudge: float = 0.0,
    change: Callable[[SimulatedNetwork], object] | None = None,
    conditioning: Conditioning | None = None,
    guidance: float | None = None,
    table: SamplerTable | None = None,
) -> Run:
    """(latents of the own rollout, outputs at the simulation's latents) of an emulated device."""
    network = SimulatedNetwork(artifact, mode)
    if change is not None:
        change(network)
    denoiser = Denoiser(
        network,
        artifact.table,
        conditioning or reference.conditioning,
        artifact.guidance if guidance is None else guidance,
        network.set_step,
    )
    dtype = next(network.parameters()).dtype

    def call(x: Tensor, k: int) -> Tensor:
        return denoiser((x * (1 + nudge)).to(dtype), k).to(torch.float32)

    outputs = torch.stack([call(reference.simulation_latents[k], k) for k in range(reference.calls)])
    return rollout(table or artifact.table, call, reference.start), outputs


def half_between_layers(network: SimulatedNetwork) -> None:
    """fp16 between the operations, as Core ML and TensorRT keep it."""
    for module in network.modules():
        if isinstance(module, SimulatedLayer | nn.GroupNorm | nn.SiLU):
            module.register_forward_hook(lambda _module, _inputs, out: out.half().float())


CORRECT: dict[str, Callable[[Case], Run]] = {
    "the simulation itself": lambda c: run(c.artifact, c.reference),
    "fake-quantized float32": lambda c: run(c.artifact, c.reference, mode="fake_quantize"),
    "fake-quantized float64": lambda c: run(c.artifact, c.reference, mode="fake_quantize", change=lambda n: n.double()),
    "input off by 1e-5": lambda c: run(c.artifact, c.reference, nudge=1e-5),
}


def wrong_scale(artifact: Artifact, column: int, factor: float, step_group: int | None = None) -> Artifact:
    scale = artifact.scale.clone()
    scale[slice(None) if step_group is None else step_group, column] *= factor
    return dataclasses.replace(artifact, scale=scale)


def swapped_groups(artifact: Artifact, first: int, second: int) -> Artifact:
    order = list(range(len(artifact.step_groups)))
    order[first], order[second] = second, first
    return dataclasses.replace(artifact, scale=artifact.scale[order], zero_point=artifact.zero_point[order])


def wrong_channel(artifact: Artifact, layer: str) -> Artifact:
    weights = artifact.layers[layer]
    scale = weights.weight_scale.clone()
    scale[0] *= 2
    return dataclasses.replace(artifact, layers={**artifact.layers, layer: LayerWeights(weights.weight_q, scale)})


def skipping(table: SamplerTable, step: int) -> SamplerTable:
    """A sampler that leaves the latent as it is at one step."""
    a, b = ([list(row) for row in rows] for rows in (table.a, table.b))
    a[step], b[step] = [1.0] + [0.0] * (len(a[step]) - 1), [0.0] * len(b[step])
    return dataclasses.replace(table, a=tuple(map(tuple, a)), b=tuple(map(tuple, b)))


def write_bundle(folder: Path, made: Case) -> Path:
    """A bundle folder whose program is a placeholder: judging never opens it."""
    artifact, reference = made.artifact, made.reference
    write_bytes(folder / "model.bin", b"program")
    reference.save(folder / FILE)
    shape = (1, *reference.start.shape[1:])
    Bundle(
        target="executorch",
        form="sentinel",
        model_id=artifact.model_id,
        weight_hash=artifact.weight_hash,
        versions={"torch": "0"},
        program="model.bin",
        inputs=(
            Port("sample", "float32", shape),
            Port("timestep", "float32", (1,)),
            Port("class_labels", "int64", (1,)),
        ),
        outputs=(Port("out", "float32", shape),),
        step_groups=artifact.step_groups,
        methods=("forward",),
        table=artifact.table,
        guidance=artifact.guidance,
        limits=made.limits,
        operations=(
            Operation("convolution", "delegate", "int8 x int8 -> int32", 12, ""),
            Operation("group norm", "delegate", "float32", 5, "statistics need float"),
        ),
        sites=tuple(site_rows(artifact)),
        sizes={"model.bin": 7},
        files={name: sha256(folder / name) for name in ("model.bin", FILE)},
    ).save(folder)
    return folder


def header(bundle: Path, steps: int = STEPS) -> dict[str, Any]:
    return {
        "target": "executorch",
        "runtime": {"name": "emulated", "version": "0"},
        "device": "a <test> device",
        "versions": {"torch": "0"},
        "compute_unit": "cpu",
        "bundle_sha256": bundle_hash(bundle),
        "bundle": "..",
        "load_ms": 1.5,
        "step_ms": [2.0] * steps,
        "peak_memory_bytes": 1000,
    }


def write_run(bundle: Path, made: Case, device: Run) -> Path:
    """The report of an emulated device, in a folder inside the bundle."""
    return write_report(bundle / "report", header(bundle), *device, made.reference)
