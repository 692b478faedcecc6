"""Target 'toy': a target as somebody would add it. Its program is the artifact, which the integer simulation executes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dq_toolchain.backends.base import Execute, Runtime, Say, TargetInfo

if TYPE_CHECKING:
    from torch import Tensor

    from dq_toolchain.toolchain.formats.artifact import Artifact
    from dq_toolchain.toolchain.formats.bundle import Bundle
    from dq_toolchain.toolchain.parts.artifact import PartsArtifact

    from .settings import Settings

PROGRAM, METHOD = "program", "forward"


def describe() -> TargetInfo:
    return TargetInfo(
        name="toy",
        library="nothing",
        version="1",
        install="nothing",
        schemes=("symmetric", "affine"),
        weight_bits=(8,),
        activation_bits=(8,),
        verified="nowhere",
        any_size=True,
    )


def lower(
    artifact: Artifact,
    artifact_folder: Path,
    out: Path,
    settings: Settings,
    say: Say,
    parts: PartsArtifact | None = None,
) -> Bundle:
    from dq_toolchain.backends.common.call import example_call
    from dq_toolchain.backends.common.sealing import seal_bundle
    from dq_toolchain.backends.common.staging import staging
    from dq_toolchain.toolchain.formats.artifact import load_reference
    from dq_toolchain.toolchain.formats.bundle import Bundle, Operation
    from dq_toolchain.toolchain.formats.reference import FILE
    from dq_toolchain.toolchain.verdict.limits import limits_for

    say(f"{settings.flavour}, {settings.depth} deep, {'polished' if settings.polish else 'rough'}")
    reference = load_reference(artifact_folder)
    with staging(out) as folder:
        artifact.save(folder / PROGRAM, reference)
        reference.save(folder / FILE)
        seal_bundle(
            folder,
            artifact,
            example_call(artifact, reference),
            target="toy",
            form=settings.flavour,
            program=PROGRAM,
            methods=(METHOD,),
            operations=(Operation("product", "simulation", "int8 x int8 -> int32", len(artifact.sites), ""),),
            limits=limits_for(reference),
            libraries=(),
        )
    return Bundle.load(out)


def methods(bundle: Bundle, bundle_folder: Path) -> Collection[str]:
    return [METHOD]


def open(bundle: Bundle, bundle_folder: Path, threads: int | None) -> tuple[Execute, Runtime]:
    from dq_toolchain.toolchain.formats.artifact import Artifact
    from dq_toolchain.toolchain.models.architectures import call_network
    from dq_toolchain.toolchain.simulation.network import SimulatedNetwork

    network = SimulatedNetwork(Artifact.load(bundle_folder / bundle.program))

    def execute(k: int, sample: Tensor, timestep: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        network.set_step(k)
        return call_network(network, sample, timestep, dict(conditioning))

    return execute, Runtime("toy", "1", "CPU", 0.0)
