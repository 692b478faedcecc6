"""Text encoders and decoders of a pipeline for TensorRT: lowered, audited, described for the program that builds engines."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dq_toolchain.backends.base import PartProgram, Say
from dq_toolchain.backends.common.onnx.operations import operations_table
from dq_toolchain.backends.common.onnx.parts import graph_in, write_graph
from dq_toolchain.backends.common.onnx.shared_weights import release
from dq_toolchain.backends.common.part_calls import in_words, part_beyond_fp16, reference_calls
from dq_toolchain.backends.common.powers import factored
from dq_toolchain.backends.tensorrt.graph.parts import in_terms_of_networks, part_graph
from dq_toolchain.backends.tensorrt.proof.lint import Placement, lint
from dq_toolchain.backends.tensorrt.proof.nvidia import check_build
from dq_toolchain.backends.tensorrt.proof.parts import audit_part
from dq_toolchain.backends.tensorrt.settings import Settings
from dq_toolchain.backends.tensorrt.support import in_float
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.parts.artifact import PartsArtifact
from dq_toolchain.toolchain.parts.part import Part
from dq_toolchain.toolchain.parts.pipeline import FOLDER

INTEGERS = "int8 x int8"
UNPACKED = "only its weights are int8, the builder unpacks them"


@dataclass(frozen=True)
class Parts:
    """The parts of one export.

    Attributes:
        calibration: folder of the artifact. rows: of placements.json, a row for each graph that was written.
    """

    found: PartsArtifact
    calibration: Path
    settings: Settings
    say: Say
    rows: list[dict[str, Any]] = field(default_factory=list)

    def lower(self, part: Part, folder: Path) -> PartProgram:
        """Write the folder NAME, read its graph back, and compare its integers with the part's. Raises BackendError."""
        beyond = self._beyond(part)
        precision = "fp32" if beyond else self.settings.graph_precision
        if beyond:
            self.say(f"{part.name} is computed in fp32: {in_words(beyond)}")
        artifact, program = in_terms_of_networks(part), folder / part.name
        graph = write_graph(part_graph(part, artifact, precision), program)
        audit_part(graph, part, artifact)
        placements = _placements(graph, artifact)
        arithmetic = {each.name: (INTEGERS if each.int8 else precision, each.why_float) for each in placements}
        operations = tuple(operations_table(graph, arithmetic, precision, 1))
        release(graph)
        if self.settings.check_build:
            seen = check_build(graph_in(program), placements)
            self.say(f"{part.name}: {seen.int8} of {seen.promised} promised layers are INT8 ({seen.library})")
        self.rows.append(
            {
                "graph": f"{FOLDER}/{part.name}/{graph_in(program).name}",
                "precision": precision,
                "int8": [each.name for each in placements if each.int8],
                "float": {each.name: each.why_float for each in placements if not each.int8},
                **({"fp16": False} if beyond else {}),
            }
        )
        return PartProgram(part.name, _precision(artifact, precision, bool(beyond)), operations)

    def _beyond(self, part: Part) -> dict[str, float]:
        layers = {name: weights for name, weights in part.layers.items() if name not in part.tables}
        growth = {name: factored(weights.weight_scale).growth for name, weights in layers.items()}
        call = next(reference_calls(self.found, part, self.calibration / FOLDER))
        return part_beyond_fp16(part, call, growth if self.settings.graph_precision == "fp16" else None)


def _placements(graph: Any, artifact: Artifact) -> tuple[Placement, ...]:
    """Where every layer will run. Raises BackendError: one that is to be INT8 breaks a rule of the builder."""
    sites, narrow = {site.layer for site in artifact.sites}, in_float(artifact)
    found = tuple(
        each if each.name in sites else Placement(each.name, each.op_type, narrow.get(each.name, UNPACKED))
        for each in lint(graph)
    )
    wrong = next((each for each in found if each.name in sites and not each.int8), None)
    if wrong is not None:
        raise BackendError(
            f"{wrong.name} of {artifact.model_id} would run in float on NVIDIA's builder: {wrong.why_float}; nothing was "
            "exported; report it with calibration.json, or export with --unet-only"
        )
    return found


def _precision(artifact: Artifact, precision: str, beyond: bool) -> str:
    between = "fp16" if precision == "fp16" else "fp32" if beyond else "fp32, or fp16 where the builder takes it"
    if not artifact.sites:
        return f"int8 weights per channel, unpacked by the builder to {between}"
    count, layers = len(artifact.sites), len(artifact.layers)
    return f"int8 weights per channel; int8 activations of {count} of {layers} layers, all else in {between}"
