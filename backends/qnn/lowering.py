"""From the calibration artifact to a bundle folder: export, rewrite, read back, lint and audit, execute, and only then publish."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dq_toolchain.backends.base import Say
from dq_toolchain.backends.common.call import Call, example_call
from dq_toolchain.backends.common.fp16_range import beyond_fp16, coarse_in_fp16, known_beyond_fp16, refuse_beyond
from dq_toolchain.backends.common.onnx.building import check_model
from dq_toolchain.backends.common.onnx.cost import COST
from dq_toolchain.backends.common.onnx.export import export
from dq_toolchain.backends.common.onnx.libraries import LIBRARIES, onnx_ir
from dq_toolchain.backends.common.onnx.operations import operations_table
from dq_toolchain.backends.common.onnx.parts import open_part
from dq_toolchain.backends.common.onnx.reading import products, read_weight
from dq_toolchain.backends.common.onnx.session import Sessions, executor
from dq_toolchain.backends.common.onnx.shared_weights import release, share_weights
from dq_toolchain.backends.common.parts import add_parts
from dq_toolchain.backends.common.samplings import other_samplings
from dq_toolchain.backends.common.schedule import Schedule
from dq_toolchain.backends.common.sealing import seal_bundle
from dq_toolchain.backends.common.smoke import smoke
from dq_toolchain.backends.common.staging import staging
from dq_toolchain.backends.common.step_rows import write_step_rows
from dq_toolchain.backends.qnn.chips import EMULATED, SOCS
from dq_toolchain.backends.qnn.graph.biases import GRAPH, NPU, graph_to_compile, set_npu_biases
from dq_toolchain.backends.qnn.graph.rewrite import EXPORTED, Rewriter, set_step_group
from dq_toolchain.backends.qnn.graph.sinusoids import projected, projected_tensors, take_projected
from dq_toolchain.backends.qnn.graph.weights import drops_bits
from dq_toolchain.backends.qnn.parts import Parts
from dq_toolchain.backends.qnn.proof.audit import audit
from dq_toolchain.backends.qnn.proof.lint import Placement, lint
from dq_toolchain.backends.qnn.proof.reading import dtype_of, read_around
from dq_toolchain.backends.qnn.settings import Settings
from dq_toolchain.backends.qnn.support import TARGET, check_supported
from dq_toolchain.backends.qnn.vendor import require_compiler
from dq_toolchain.toolchain.disk.files import write_json
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact, load_reference
from dq_toolchain.toolchain.formats.bundle import Bundle, Operation
from dq_toolchain.toolchain.formats.reference import FILE as REFERENCE
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.parts.artifact import PartsArtifact
from dq_toolchain.toolchain.verdict.limits import limits_for

MODEL, MAIN, PLACEMENTS = "model", "steps", "placements.json"
BETWEEN = "fp16"
"""What the NPU computes in between products; the graphs say float32."""
QUANTIZERS = "brings operands and results of products to integers and back, unpacks weights"
ARITHMETIC = 1e-3
"""Share of an output by which a call's float operations, fp16 on the NPU, may change it: 0.0006 to 0.0010 was measured on the
emulator, embedded model, 40 calls."""
NO_FP16 = "export for a target with --precision fp32"


@dataclass(frozen=True)
class Written:
    """Graphs in a folder. ``methods``: their names without suffix. ``products`` and ``operations``: alike in all of them."""

    methods: tuple[str, ...]
    products: tuple[Placement, ...]
    operations: tuple[Operation, ...]


def write_graphs(artifact: Artifact, call: Call, folder: Path, say: Say) -> Written:
    """Write every step group's graph and weights.bin into ``folder``; read them back, lint and audit.

    Raises:
        BackendError: see ``lower``.
    """
    say(f"exporting {len(artifact.sites)} sites; needs {COST.of(artifact, call)}")
    model = export(artifact, call, "fp32", EXPORTED, take_projected)
    Rewriter(model, artifact).run()
    share_weights(model, folder)
    methods = tuple(f"{MAIN}_g{group}" for group in range(len(artifact.step_groups)))
    say(f"one graph per step group, {len(methods)} in all, sharing the weights")
    endings = (GRAPH, NPU) if drops_bits(artifact) else (GRAPH,)
    for ending in endings:
        for group, method in enumerate(methods):
            set_step_group(model, artifact, group)
            if ending == NPU:
                set_npu_biases(model, artifact, group)
            onnx_ir().save(model, folder / f"{method}{ending}")
    del model
    say("reading the files back: every integer, scale and zero_point, and what Qualcomm's compiler makes of them")
    for group, ending in ((group, ending) for group in range(len(methods)) for ending in endings):
        path = folder / f"{methods[group]}{ending}"
        check_model(path)
        graph = onnx_ir().load(path).graph
        audit(graph, artifact, group, ending == NPU)
        placements = lint(graph)
        _refuse(placements)
        arithmetic = {node.name: (_arithmetic(node), "") for node in products(graph) if _integer(node, placements)}
        release(graph)
    rows = operations_table(graph, arithmetic, BETWEEN, len(methods), artifact.float_layers, "HTP", QUANTIZERS)
    return Written(methods, placements, tuple(rows))


def _refuse(placements: Sequence[Placement]) -> None:
    """Raise BackendError for the first node that the compiler does not take as it is written."""
    wrong = [placement for placement in placements if not placement.integer]
    if wrong:
        raise BackendError(
            f"{wrong[0].name} would not be integers on Qualcomm's NPU: {wrong[0].why}; nothing was exported; report it with "
            "calibration.json"
        )


def _integer(node: Any, placements: Sequence[Placement]) -> bool:
    return any(placement.name == node.name for placement in placements)


def _arithmetic(node: Any) -> str:
    """E.g. "uint16 x int8"."""
    around, weight = read_around(node), read_weight(node.inputs[1])
    kinds = [dtype_of(operand) for operand in around.operands if operand is not None]
    kinds += [] if weight is None else [weight.dtype]
    return " x ".join(kind.lower() for kind in kinds)


def lower(
    artifact: Artifact,
    artifact_folder: Path,
    out: Path,
    settings: Settings,
    say: Say,
    parts: PartsArtifact | None = None,
) -> Bundle:
    """Write the bundle folder ``out``: model/ with graphs and weights, the parts, a folder per chip of ``soc``, bundle.json last.

    Raises:
        BackendError: a site cannot be held, the network cannot be exported, a graph differs from the artifact or breaks a rule of
            the compiler, does not execute as the simulation does, or Qualcomm's library is asked for and missing or refuses it.
            No bundle is left then.
        ToolchainError: ``out`` cannot be written.
    """
    check_supported(artifact, settings)
    for flag, asked in (("--soc", settings.chips), ("--check-build", settings.check_build)):
        if asked:
            require_compiler(flag)
    reference, groups = load_reference(artifact_folder), artifact.group_of_step
    refuse_beyond(known_beyond_fp16(artifact) or beyond_fp16(artifact, reference, of_products=False), TARGET, NO_FP16)
    if coarse := coarse_in_fp16(artifact):
        say(coarse)
    reference = _taken(artifact, reference)
    call = example_call(artifact, reference)
    with staging(out) as folder:
        model = folder / MODEL
        model.mkdir()
        written = write_graphs(artifact, call, model, say)
        say("executing it once per step group, in ONNX Runtime")
        methods = [written.methods[group] for group in groups]
        execute = executor(Sessions(model), Schedule(methods, groups, None, artifact.step_rows))
        smoke(execute, artifact.table, artifact.guidance, groups, reference)
        compiled = dict(_compile(written, artifact, folder, settings, say))
        compiled |= _add_parts(parts, artifact, artifact_folder, folder, settings, say)
        reference.save(folder / REFERENCE)
        write_step_rows(artifact, folder)
        _write_placements(folder, written, settings, compiled)
        seal_bundle(
            folder,
            artifact,
            call,
            target=TARGET,
            form=settings.form,
            program=MODEL,
            methods=written.methods,
            operations=written.operations,
            limits=_limits(artifact, reference),
            libraries=LIBRARIES,
            samplings=other_samplings(
                artifact, artifact_folder, folder, lambda one, other: (_taken(one, other), _limits(one, other))
            ),
        )
    for soc in set(SOCS) - set(settings.chips):
        shutil.rmtree(out / soc, ignore_errors=True)  # of an earlier bundle: its contexts hold other numbers
    return Bundle.load(out)


def _taken(artifact: Artifact, reference: Reference) -> Reference:
    """With the conditioning as the program takes it."""
    return replace(reference, conditioning=projected(artifact, reference.conditioning))


def _limits(artifact: Artifact, reference: Reference) -> dict[str, Any]:
    """With room for fp16. Errors of a conditional and an unconditional call are independent; guidance multiplies both."""
    w = artifact.guidance
    return limits_for(reference, arithmetic=ARITHMETIC * (1.0 if w == 1 else math.hypot(w, w - 1)))


def _compile(
    written: Written, artifact: Artifact, folder: Path, settings: Settings, say: Say
) -> Iterator[tuple[str, Any]]:
    """What Qualcomm's library is asked for: a check of what it makes, and a context per chip; plain JSON values by name."""
    graphs = [graph_to_compile(folder / MODEL, method) for method in written.methods]
    if settings.check_build:
        from dq_toolchain.backends.qnn.htp.check import check_build

        soc = settings.chips[0] if settings.chips else EMULATED
        say(f"compiling {len(graphs)} graphs for {soc}: is every product integer?")
        yield "checked", check_build(graphs, artifact, soc, say).to_json()
    if settings.chips:
        from dq_toolchain.backends.qnn.htp.contexts import write_contexts

        contexts = {}
        for soc in settings.chips:
            contexts[soc] = write_contexts(graphs, folder / soc, soc, say).to_json()
        yield "contexts", contexts


def _add_parts(
    found: PartsArtifact | None,
    artifact: Artifact,
    calibration: Path,
    folder: Path,
    settings: Settings,
    say: Say,
) -> dict[str, Any]:
    """What placements.json says of the parts; without parts nothing is written."""
    if found is None:
        return {}
    found = replace(found, constants=projected_tensors(artifact, found.constants))
    parts = Parts(found, calibration, folder, settings, say)
    add_parts(found, calibration, folder, parts.lower, open_part, say, COST)
    return {"parts": parts.rows}


def _write_placements(folder: Path, written: Written, settings: Settings, compiled: dict[str, Any]) -> None:
    """What a device needs to know beside the graphs."""
    content = {
        "graphs": [f"{MODEL}/{method}.onnx" for method in written.methods],
        "npu_graphs": [f"{MODEL}/{graph_to_compile(folder / MODEL, method).name}" for method in written.methods],
        "form": settings.form,
        "between": BETWEEN,
        "integer": [placement.name for placement in written.products],
        **compiled,
    }
    write_json(folder / PLACEMENTS, content)
