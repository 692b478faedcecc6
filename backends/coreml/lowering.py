"""From the calibration artifact to a bundle folder: convert, read back and audit, execute, and only then publish."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dq_toolchain.backends.base import Say
from dq_toolchain.backends.common.call import Call, example_call
from dq_toolchain.backends.common.checks import Cost, check_size
from dq_toolchain.backends.common.fp16_range import check_by_running, coarse_in_fp16
from dq_toolchain.backends.common.outputs import output_qparams, output_reference
from dq_toolchain.backends.common.ratios import ratio_table, reference_scales
from dq_toolchain.backends.common.schedule import Schedule
from dq_toolchain.backends.common.sealing import seal_bundle
from dq_toolchain.backends.common.smoke import IN_FP16, REPORT, smoke
from dq_toolchain.backends.common.staging import staging
from dq_toolchain.backends.coreml.graph.build import build
from dq_toolchain.backends.coreml.graph.chunks import cut
from dq_toolchain.backends.coreml.graph.convert import MAIN, convert, deployment_target, right_passes
from dq_toolchain.backends.coreml.graph.entries import (
    TAGGED,
    Entry,
    FixedEntry,
    RangesInput,
    RuntimeEntry,
)
from dq_toolchain.backends.coreml.graph.functions import function_name, split_into_functions
from dq_toolchain.backends.coreml.graph.merge import merge
from dq_toolchain.backends.coreml.graph.qparams import QParams
from dq_toolchain.backends.coreml.interpreter.program import load
from dq_toolchain.backends.coreml.package import STRAY, packages_in
from dq_toolchain.backends.coreml.proof.audit import Audited, Expected, audit
from dq_toolchain.backends.coreml.runtime.device import open_package
from dq_toolchain.backends.coreml.settings import Settings
from dq_toolchain.backends.coreml.support import check_supported
from dq_toolchain.backends.coreml.vendor import LIBRARY
from dq_toolchain.toolchain.disk.files import write_tensors
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact, load_reference
from dq_toolchain.toolchain.formats.bundle import RANGES, Bundle
from dq_toolchain.toolchain.formats.reference import FILE as REFERENCE
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.verdict.limits import limits_for

PACKAGE, CHUNKS = "model.mlpackage", "chunks"
TARGET = "coreml"
COST = Cost(library_mb=700, bytes_per_parameter=8.2, seconds_per_layer=0.2)
"""Measured by `python -m benchmarks.sd15_chain` and `benchmarks.coreml_size`: 7.1 GiB (3.9 before it is executed) and 56 to
70 s for 860 M parameters in 282 layers."""


@dataclass(frozen=True)
class Plan:
    """What the form of the package decides: expected numbers, input ranges, and the reference to be judged by."""

    form: str
    expected: Expected
    ranges: Tensor | None
    reference: Reference
    limits: Mapping[str, Any]


def plan_of(artifact: Artifact, reference: Reference, settings: Settings, say: Say) -> Plan:
    """Raises BackendError: run-time scales, or ranges of outputs, cannot be had for this artifact."""
    half = settings.precision == "fp16"
    if settings.step_groups_as == "input":
        scale = reference_scales(artifact.scale).unsqueeze(0)
        names = tuple(site.name for site in artifact.sites)
        expected = Expected(QParams(names, scale, torch.zeros(scale.shape, dtype=torch.int32)), runtime=True, half=half)
        return Plan(
            "runtime-scales",
            expected,
            ratio_table(artifact, "--step-groups-as input"),
            reference,
            limits_for(reference),
        )
    if not settings.quantize_outputs:
        return Plan("functions", Expected(QParams.of(artifact), half=half), None, reference, limits_for(reference))
    say("measuring the ranges of outputs")
    outputs = output_qparams(artifact, reference)
    expected = Expected(QParams.of(artifact, outputs), outputs=True, half=half)
    return Plan("functions", expected, None, *output_reference(artifact, reference, outputs))


def write_program(
    artifact: Artifact, call: Call, settings: Settings, expected: Expected, folder: Path, say: Say
) -> tuple[str, Audited]:
    """Convert, cut, split into functions, read back and audit; returns the program's name in ``folder``.

    Raises:
        BackendError: see ``lower``.
    """
    say(f"converting {len(artifact.sites)} sites; needs {COST.of(artifact)}")
    if expected.runtime:
        ranges = RangesInput()
        name = _convert(artifact, call, settings, RuntimeEntry(artifact, ranges), folder, ranges)
    else:
        name = _convert(artifact, call, settings, TAGGED, folder)
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
    methods = (MAIN,) if expected.runtime else tuple(map(function_name, range(len(artifact.step_groups))))
    return name, audit({method: programs[method] for method in methods}, artifact, expected)


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
    convert(build(artifact, settings, entry), call, settings, package, ranges)
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
        packages.append(own / _convert(artifact, call, settings, FixedEntry(numbers.__getitem__), own))
    merge(packages, folder / PACKAGE)
    for package in packages:
        shutil.rmtree(package.parent)


def lower(artifact: Artifact, artifact_folder: Path, out: Path, settings: Settings, say: Say) -> Bundle:
    """Write the bundle folder ``out``: model.mlpackage or chunks, and reference, bundle.json last.

    Raises:
        BackendError: a site cannot be held, coremltools refuses the network, the package differs from the artifact, or
            it does not execute as the simulation does. No bundle is left then.
        ToolchainError: ``out`` cannot be written.
    """
    check_supported(artifact, settings)
    held_out = load_reference(artifact_folder)
    check_size(artifact, held_out, TARGET)
    if settings.precision == "fp16":
        check_by_running(artifact, held_out, TARGET)
        if coarse := coarse_in_fp16(artifact):
            say(coarse)
    plan = plan_of(artifact, held_out, settings, say)
    reference, ranges, groups = plan.reference, plan.ranges, artifact.group_of_step
    call = example_call(artifact, reference, None if ranges is None else ranges[:1])
    with staging(out) as folder:
        program, audited = write_program(artifact, call, settings, plan.expected, folder, say)
        methods = tuple(audited.sites)
        say("executing it once per step group")
        schedule = Schedule([methods[g if len(methods) > 1 else 0] for g in groups], groups, ranges)
        execute, _ = open_package(folder / program, schedule)
        smoke(
            execute,
            artifact.table,
            artifact.guidance,
            groups,
            reference,
            IN_FP16 if settings.precision == "fp16" else REPORT,
        )
        reference.save(folder / REFERENCE)
        if ranges is not None:
            write_tensors(folder / RANGES, {"ranges": ranges})
        seal_bundle(
            folder,
            artifact,
            call,
            target=TARGET,
            form=plan.form,
            program=program,
            methods=methods,
            operations=audited.operations,
            limits=plan.limits,
            libraries=(LIBRARY,),
        )
    return Bundle.load(out)
