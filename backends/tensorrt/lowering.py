"""From the calibration artifact to a bundle folder: export, rewrite, read back and audit, execute, and only then publish."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from dq_toolchain.backends.base import Say
from dq_toolchain.backends.common.call import Call, example_call
from dq_toolchain.backends.common.fp16_range import beyond_fp16, coarse_in_fp16, known_beyond_fp16, refuse_beyond
from dq_toolchain.backends.common.onnx.building import check_model
from dq_toolchain.backends.common.onnx.cost import COST
from dq_toolchain.backends.common.onnx.export import export
from dq_toolchain.backends.common.onnx.libraries import LIBRARIES, onnx_ir
from dq_toolchain.backends.common.onnx.operations import operations_table
from dq_toolchain.backends.common.onnx.parts import open_part
from dq_toolchain.backends.common.onnx.session import Sessions, executor
from dq_toolchain.backends.common.onnx.shared_weights import release, share_weights
from dq_toolchain.backends.common.parts import add_parts
from dq_toolchain.backends.common.ratios import ratio_table
from dq_toolchain.backends.common.samplings import other_samplings
from dq_toolchain.backends.common.schedule import Schedule
from dq_toolchain.backends.common.sealing import seal_bundle
from dq_toolchain.backends.common.smoke import IN_FP16, REPORT, smoke
from dq_toolchain.backends.common.staging import staging
from dq_toolchain.backends.common.step_rows import write_step_rows
from dq_toolchain.backends.tensorrt.deploy.build_engines import ENGINES
from dq_toolchain.backends.tensorrt.graph.rewrite import OPSET, Rewriter, set_step_group
from dq_toolchain.backends.tensorrt.parts import Parts
from dq_toolchain.backends.tensorrt.proof.audit import audit
from dq_toolchain.backends.tensorrt.proof.lint import Placement, lint
from dq_toolchain.backends.tensorrt.proof.nvidia import Compiled, check_build, require_compiler
from dq_toolchain.backends.tensorrt.settings import Settings
from dq_toolchain.backends.tensorrt.support import check_supported, in_float
from dq_toolchain.toolchain.disk.files import write_json, write_tensors
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact, load_reference
from dq_toolchain.toolchain.formats.bundle import RANGES, Bundle, Operation
from dq_toolchain.toolchain.formats.reference import FILE as REFERENCE
from dq_toolchain.toolchain.parts.artifact import PartsArtifact
from dq_toolchain.toolchain.verdict.limits import limits_for

TARGET, MODEL, MAIN = "tensorrt", "model", "steps"
FORMS = {"methods": "static", "input": "ratio"}
"""What bundle.json calls the forms of the program, with a dash and the precision behind."""
PLACEMENTS = "placements.json"
INTEGERS = "int8 x int8"
DEPLOY = ("build_engines.py", "graph_types.py", "int8_layers.py", "made_of.py", "build_engines.sh", "bench.sh")
"""Programs for the device; they read the bundle and import nothing of ours."""


@dataclass(frozen=True)
class Written:
    """Graphs in a folder. ``methods``: their names without suffix. ``placements`` and ``operations``: alike in all of them."""

    methods: tuple[str, ...]
    placements: tuple[Placement, ...]
    operations: tuple[Operation, ...]


def write_graphs(artifact: Artifact, call: Call, settings: Settings, folder: Path, say: Say) -> Written:
    """Write every step group's graph, or the one for all, and weights.bin into ``folder``; read them back and audit.

    Raises:
        BackendError: see ``lower``.
    """
    say(f"exporting {len(artifact.sites)} sites; needs {COST.of(artifact, call)}")
    ratio, planned = settings.step_groups_as == "input", in_float(artifact)
    model = export(artifact, call.with_ranges(None), settings.graph_precision, OPSET)
    Rewriter(model, artifact, settings.graph_precision, planned, ratio).run()
    share_weights(model, folder)
    groups: tuple[int | None, ...] = (None,) if ratio else tuple(range(len(artifact.step_groups)))
    methods = tuple(MAIN if group is None else f"{MAIN}_g{group}" for group in groups)
    say(f"one graph {'for all step groups' if ratio else 'per step group'}, {len(methods)} in all, sharing the weights")
    for group, method in zip(groups, methods, strict=True):
        if group is not None:
            set_step_group(model, artifact, group)
        onnx_ir().save(model, folder / f"{method}.onnx")
    del model
    say("reading the files back: every integer and scale, and what NVIDIA's builder makes of them")
    for group, method in zip(groups, methods, strict=True):
        path = folder / f"{method}.onnx"
        check_model(path)
        graph = onnx_ir().load(path).graph
        audit(graph, artifact, group)
        placements = tuple(placement for placement in lint(graph) if placement.name not in artifact.float_layers)
        _check_placements(placements, planned)
        release(graph)
    precision = settings.graph_precision
    arithmetic = {each.name: (INTEGERS if each.int8 else precision, each.why_float) for each in placements}
    operations = operations_table(graph, arithmetic, precision, len(methods), artifact.float_layers)
    return Written(methods, placements, tuple(operations))


def _check_placements(placements: tuple[Placement, ...], planned: Mapping[str, str]) -> None:
    """Raise BackendError for a product that would fall back to float though nothing about its shape says so."""
    for placement in placements:
        if not placement.int8 and placement.name not in planned:
            remedy = (
                'calibrate with [quantize] attention = "float"'
                if ":" in placement.name
                else "nothing was exported; report it with calibration.json"
            )
            raise BackendError(
                f"{placement.name} would run in float on NVIDIA's builder: {placement.why_float}; {remedy}"
            )


def lower(
    artifact: Artifact,
    artifact_folder: Path,
    out: Path,
    settings: Settings,
    say: Say,
    parts: PartsArtifact | None = None,
) -> Bundle:
    """Write the bundle folder ``out``: model/ with graphs and weights, the parts, programs for the device, bundle.json last.

    Raises:
        BackendError: a site cannot be held, the network cannot be exported, a graph differs from the artifact, a product
            would fall back to float, or a graph does not execute as the simulation does. No bundle is left then.
        ToolchainError: ``out`` cannot be written.
    """
    check_supported(artifact, settings)
    if settings.check_build:
        require_compiler()
    reference, groups = load_reference(artifact_folder), artifact.group_of_step
    ranges: Tensor | None = (
        ratio_table(artifact, "--step-groups-as input") if settings.step_groups_as == "input" else None
    )
    call = example_call(artifact, reference, None if ranges is None else ranges[:1])
    beyond = known_beyond_fp16(artifact) or beyond_fp16(artifact, reference)
    if settings.graph_precision == "fp16":
        refuse_beyond(beyond, TARGET)
        if coarse := coarse_in_fp16(artifact):
            say(coarse)
    elif beyond:
        say(f"values beyond fp16 at {', '.join(beyond)}: the builder is told to use no fp16 kernels")
    with staging(out, (ENGINES,)) as folder:
        (folder / MODEL).mkdir()
        written = write_graphs(artifact, call, settings, folder / MODEL, say)
        compiled = None
        if settings.check_build:
            say("compiling with NVIDIA's compiler: are the promised sites INT8?")
            compiled = check_build(folder / MODEL / f"{written.methods[0]}.onnx", written.placements)
            say(
                f"{compiled.int8} of {compiled.promised} promised sites are INT8 in {compiled.graph} "
                f"({compiled.library}, {compiled.compute_capability}); other step groups differ in scales only"
            )
        say("executing it once per step group, in ONNX Runtime")
        methods = [written.methods[g if len(written.methods) > 1 else 0] for g in groups]
        smoke(
            executor(Sessions(folder / MODEL), Schedule(methods, groups, ranges, artifact.step_rows)),
            artifact.table,
            artifact.guidance,
            groups,
            reference,
            IN_FP16 if settings.graph_precision == "fp16" else REPORT,
        )
        reference.save(folder / REFERENCE)
        write_step_rows(artifact, folder)
        if ranges is not None:
            write_tensors(folder / RANGES, {"ranges": ranges})
        operations = written.operations if compiled is None else tuple(seen_compiled(written.operations, compiled))
        rows = _add_parts(parts, artifact_folder, folder, settings, say)
        _write_deployment(folder, written, settings, compiled, rows, fp16=not beyond)
        seal_bundle(
            folder,
            artifact,
            call,
            target=TARGET,
            form=f"{FORMS[settings.step_groups_as]}-{settings.graph_precision}",
            program=MODEL,
            methods=written.methods,
            operations=operations,
            limits=limits_for(reference),
            libraries=LIBRARIES,
            samplings=other_samplings(artifact, artifact_folder, folder, lambda _, other: (other, limits_for(other))),
        )
    return Bundle.load(out)


def _add_parts(
    found: PartsArtifact | None, calibration: Path, folder: Path, settings: Settings, say: Say
) -> list[dict[str, Any]]:
    """What placements.json says of the parts; without parts nothing is written."""
    if found is None:
        return []
    parts = Parts(found, calibration, settings, say)
    add_parts(found, calibration, folder, parts.lower, open_part, say, COST)
    return parts.rows


def seen_compiled(operations: tuple[Operation, ...], compiled: Compiled) -> Iterator[Operation]:
    """The table of operations, with the compiler that was seen to make them INT8."""
    for row in operations:
        seen = f" (seen: {compiled.library}, {compiled.compute_capability})" if row.arithmetic == INTEGERS else ""
        yield replace(row, where=row.where + seen)


def _write_deployment(
    folder: Path,
    written: Written,
    settings: Settings,
    compiled: Compiled | None,
    parts: list[dict[str, Any]],
    fp16: bool,
) -> None:
    """What the device needs beside the graphs: which layers must be INT8, and the programs that build and check.

    Args:
        parts: the same of text encoders and decoder. fp16: whether a builder of fp32 graphs may choose fp16 kernels.
    """
    write_json(
        folder / PLACEMENTS,
        {
            "graphs": [f"{MODEL}/{method}.onnx" for method in written.methods],
            "precision": settings.graph_precision,
            "int8": [placement.name for placement in written.placements if placement.int8],
            "float": {placement.name: placement.why_float for placement in written.placements if not placement.int8},
            **({} if fp16 else {"fp16": False}),
            "compiled": None if compiled is None else compiled.to_json(),
            **({"parts": parts} if parts else {}),
        },
    )
    for name in DEPLOY:
        shutil.copy(Path(__file__).with_name("deploy") / name, folder / name)
