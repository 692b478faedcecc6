"""From the calibration artifact to a bundle folder: convert once, a function per step group, read back and audit, execute."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from dq_toolchain.backends.base import Say
from dq_toolchain.backends.common.call import Call
from dq_toolchain.backends.common.cost import Cost
from dq_toolchain.backends.common.qdq.audit import Expected
from dq_toolchain.backends.common.qdq.entries import Entry, RangesInput, tagged
from dq_toolchain.backends.common.qdq.export import MAIN, Written, export
from dq_toolchain.backends.common.qdq.network import build
from dq_toolchain.backends.common.qdq.qparams import QParams
from dq_toolchain.backends.common.ratios import check_symmetric
from dq_toolchain.backends.coreai.asset import save
from dq_toolchain.backends.coreai.graph.activations import for_neural_engine
from dq_toolchain.backends.coreai.graph.convert import convert
from dq_toolchain.backends.coreai.graph.entry import OperandEntry
from dq_toolchain.backends.coreai.graph.functions import split_into_functions
from dq_toolchain.backends.coreai.graph.operators import CoreAIOperators
from dq_toolchain.backends.coreai.parts import open_part, write_part
from dq_toolchain.backends.coreai.patch import canonical
from dq_toolchain.backends.coreai.proof.file import prove
from dq_toolchain.backends.coreai.proof.operations import operations_table
from dq_toolchain.backends.coreai.runtime.device import open_asset
from dq_toolchain.backends.coreai.settings import Settings
from dq_toolchain.backends.coreai.support import check_supported
from dq_toolchain.backends.coreai.vendor import LIBRARIES
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.bundle import Bundle
from dq_toolchain.toolchain.parts.artifact import PartsArtifact

TARGET, ASSET = "coreai", "model.aimodel"
COST = Cost(library_mb=1300, written=2.9, executed=2.9, seconds_per_layer=0.15)
"""Measured by `python -m benchmarks.coreai_size --execute`: 4.6 GiB (3.3 before it is executed), 38 to 73 s for 860 M
parameters in 282 layers."""


def scales(artifact: Artifact, half: bool) -> tuple[Expected, Tensor]:
    """Step groups as an input: the scales themselves."""
    check_symmetric(artifact, "--step-groups-as input")
    qparams = QParams(tuple(site.name for site in artifact.sites), artifact.scale[:1], artifact.zero_point[:1])
    return Expected(qparams, runtime="scale", half=half), artifact.scale


def write_program(
    artifact: Artifact, call: Call, settings: Settings, expected: Expected, folder: Path, say: Say
) -> Written:
    """Convert, split into functions, save, read back and audit; see ``common.qdq.export.Write``.

    Raises:
        BackendError: see ``lower``.
    """
    say(f"converting {len(artifact.sites)} sites; needs {COST.of(artifact, call)}")
    operators, ranges = CoreAIOperators(expected.half), RangesInput() if expected.runtime else None
    entry: Entry = tagged(operators) if ranges is None else OperandEntry(operators, ranges)
    network = build(artifact, call, settings, entry, operators)
    if settings.layout == "neural-engine" and not settings.quantize_outputs:  # such products of integers are refused
        network = for_neural_engine(network)
    owner = convert(network, call, expected.half, MAIN, ranges)
    del network  # its memory is needed for what follows
    if ranges is None:
        say(f"one function per step group, {len(artifact.step_groups)} in all, sharing the weights")
        split_into_functions(owner, MAIN, expected.qparams)
    canonical(owner, (weights.weight_q.numpy() for weights in artifact.layers.values()))
    save(owner, folder / ASSET)
    del owner
    say("reading the file back: every integer, scale and zero_point of every function")
    program, sites = prove(folder / ASSET, artifact, expected)
    return Written(ASSET, tuple(operations_table(program)), sites)


def lower(
    artifact: Artifact,
    artifact_folder: Path,
    out: Path,
    settings: Settings,
    say: Say,
    parts: PartsArtifact | None = None,
) -> Bundle:
    """Write the bundle folder ``out``: model.aimodel and reference, the parts, bundle.json last.

    Raises:
        BackendError: a site cannot be held, coreai-torch refuses the network, the asset differs from the artifact, or
            it does not execute as the simulation does. No bundle is left then.
        ToolchainError: ``out`` cannot be written.
    """
    return export(
        artifact,
        artifact_folder,
        out,
        settings,
        say,
        target=TARGET,
        libraries=LIBRARIES,
        check=check_supported,
        as_input=scales,
        write=write_program,
        execute=open_asset,
        parts=parts,
        write_part=write_part,
        open_part=open_part,
        cost=COST,
    )
