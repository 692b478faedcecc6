"""From the calibration artifact to a bundle folder: convert, read back and audit, execute, and only then publish."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import Tensor

from dq_toolchain.backends.base import Say
from dq_toolchain.backends.common.call import Call
from dq_toolchain.backends.common.cost import Cost
from dq_toolchain.backends.common.qdq.audit import Expected, audit
from dq_toolchain.backends.common.qdq.entries import Entry, FixedEntry, RangesInput, tagged
from dq_toolchain.backends.common.qdq.export import Written, export, function_names
from dq_toolchain.backends.common.qdq.network import build
from dq_toolchain.backends.common.qdq.qparams import QParams
from dq_toolchain.backends.common.ratios import ratio_table, reference_scales
from dq_toolchain.backends.coreml.graph.chunks import cut
from dq_toolchain.backends.coreml.graph.convert import convert, deployment_target, right_passes
from dq_toolchain.backends.coreml.graph.functions import split_into_functions
from dq_toolchain.backends.coreml.graph.group_norm import without_group_norm
from dq_toolchain.backends.coreml.graph.merge import merge
from dq_toolchain.backends.coreml.graph.operators import OPERATORS
from dq_toolchain.backends.coreml.graph.ratio import RatioEntry
from dq_toolchain.backends.coreml.interpreter.program import load
from dq_toolchain.backends.coreml.package import STRAY, packages_in
from dq_toolchain.backends.coreml.parts import open_part, write_part
from dq_toolchain.backends.coreml.proof.operations import operations_table
from dq_toolchain.backends.coreml.proof.reading import MILReader
from dq_toolchain.backends.coreml.runtime.device import open_package
from dq_toolchain.backends.coreml.settings import Settings
from dq_toolchain.backends.coreml.support import check_supported
from dq_toolchain.backends.coreml.vendor import LIBRARY
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.bundle import Bundle
from dq_toolchain.toolchain.parts.artifact import PartsArtifact

PACKAGE, CHUNKS = "model.mlpackage", "chunks"
TARGET = "coreml"
COST = Cost(library_mb=750, written=3.0, executed=3.0, convolution=4.5, layers=2, seconds_per_layer=0.2)
"""Measured by `python -m benchmarks.sd15_chain` and `benchmarks.coreml_size`: 7.1 GiB (3.9 before it is executed) and 56 to
70 s for 860 M parameters in 282 layers."""


def ratios(artifact: Artifact, half: bool) -> tuple[Expected, Tensor]:
    """Step groups as an input: reference scales in the program, and the ratios to them."""
    scale = reference_scales(artifact.scale).unsqueeze(0)
    names = tuple(site.name for site in artifact.sites)
    qparams = QParams(names, scale, torch.zeros(scale.shape, dtype=torch.int32))
    return Expected(qparams, runtime="ratio", half=half), ratio_table(artifact, "--step-groups-as input")


def write_program(
    artifact: Artifact, call: Call, settings: Settings, expected: Expected, folder: Path, say: Say
) -> Written:
    """Convert, cut, split into functions, read back and audit; see ``common.qdq.export.Write``."""
    say(f"converting {len(artifact.sites)} sites; needs {COST.of(artifact, call)}")
    if expected.runtime:
        ranges = RangesInput()
        name = _convert(artifact, call, settings, RatioEntry(artifact, ranges), folder, ranges)
    else:
        name = _convert(artifact, call, settings, tagged(OPERATORS), folder)
        say(f"one function per step group, {len(artifact.step_groups)} in all, sharing the weights")
        try:
            for each in packages_in(folder / name):
                split_into_functions(each, expected.qparams)
        except BackendError as refused:
            if name == CHUNKS:  # equal numbers become one operation, which then reaches across every place for a cut
                raise
            say(
                f"it cannot be copied ({refused}), so each step group is converted by itself; this takes as many times as long"
            )
            _convert_each(artifact, call, settings, expected.qparams, folder)
    say("reading the file back: every integer, scale and zero_point of every function")
    programs = load(*packages_in(folder / name))
    programs = {method: programs[method] for method in function_names(artifact, expected)}
    sites = audit(programs, artifact, expected, MILReader())
    return Written(name, tuple(operations_table(programs.values())), sites)


def _convert(
    artifact: Artifact,
    call: Call,
    settings: Settings,
    entry: Entry,
    folder: Path,
    ranges: RangesInput | None = None,
) -> str:
    """Write the program of one function, cut if the recipe asks for it; returns its name in ``folder``."""
    package = folder / PACKAGE
    convert(without_group_norm(build(artifact, call, settings, entry, OPERATORS)), call, settings, package, ranges)
    (package / STRAY).unlink(missing_ok=True)
    if settings.chunks == 1:
        return PACKAGE
    (folder / CHUNKS).mkdir()
    cut(package, folder / CHUNKS, deployment_target(settings), right_passes())
    return CHUNKS


def _convert_each(artifact: Artifact, call: Call, settings: Settings, qparams: QParams, folder: Path) -> None:
    """Convert every step group with its own numbers, and merge; the package in ``folder`` is replaced."""
    packages = []
    for group in range(len(artifact.step_groups)):
        own = folder / f"own{group}"
        own.mkdir()
        numbers = [qparams.at(group, index) for index in range(len(qparams.names))]  # read here: tracing cannot
        packages.append(own / _convert(artifact, call, settings, FixedEntry(OPERATORS, numbers.__getitem__), own))
    merge(packages, folder / PACKAGE)
    for package in packages:
        shutil.rmtree(package.parent)


def lower(
    artifact: Artifact,
    artifact_folder: Path,
    out: Path,
    settings: Settings,
    say: Say,
    parts: PartsArtifact | None = None,
) -> Bundle:
    """Write the bundle folder ``out``: model.mlpackage or chunks, and reference, the parts, bundle.json last.

    Raises:
        BackendError: a site cannot be held, coremltools refuses the network, the package differs from the artifact, or
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
        libraries=(LIBRARY,),
        check=check_supported,
        as_input=ratios,
        write=write_program,
        execute=open_package,
        parts=parts,
        write_part=write_part,
        open_part=open_part,
        cost=COST,
    )
