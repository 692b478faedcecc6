"""Text encoders and decoders of a pipeline for the NPU: lowered, audited, compiled where that is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dq_toolchain.backends.base import PartProgram, Say
from dq_toolchain.backends.common.onnx.operations import operations_table
from dq_toolchain.backends.common.onnx.parts import as_artifact, graph_in, write_graph
from dq_toolchain.backends.common.onnx.shared_weights import release
from dq_toolchain.backends.common.part_calls import in_words, part_beyond_fp16, reference_calls
from dq_toolchain.backends.common.parts import REMEDY
from dq_toolchain.backends.qnn.chips import EMULATED
from dq_toolchain.backends.qnn.graph.parts import float_graph, in_integers, integer_graph
from dq_toolchain.backends.qnn.proof.lint import Placement, lint
from dq_toolchain.backends.qnn.proof.parts import audit_float, audit_integers
from dq_toolchain.backends.qnn.settings import Settings
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.bundle import Operation
from dq_toolchain.toolchain.parts.artifact import PartsArtifact
from dq_toolchain.toolchain.parts.part import Part
from dq_toolchain.toolchain.parts.pipeline import FOLDER

INTEGERS = "int8 weights per channel, uint16 activations; attention and what lies between layers in fp16"
FLOAT = "fp16, with the weights that int8 per channel stands for"
BETWEEN, QUANTIZERS = "fp16", "brings operands and results of products to integers and back, unpacks weights"
ARITHMETIC = "uint16 x int8"


@dataclass(frozen=True)
class Parts:
    """The parts of one export.

    Attributes:
        calibration, bundle: folders. rows: of placements.json, a row for each graph that was written.
    """

    found: PartsArtifact
    calibration: Path
    bundle: Path
    settings: Settings
    say: Say
    rows: list[dict[str, Any]] = field(default_factory=list)

    def lower(self, part: Part, folder: Path) -> PartProgram:
        """Write the folder NAME, read its graph back, lint it, and compare its integers with the part's. Raises BackendError."""
        call = next(reference_calls(self.found, part, self.calibration / FOLDER))
        if beyond := part_beyond_fp16(part, call):
            raise BackendError(f"{part.name} does not fit the fp16 of Qualcomm's NPU: {in_words(beyond)}; {REMEDY}")
        artifact, program = in_integers(part), folder / part.name
        graph = write_graph(integer_graph(part, artifact), program)
        audit_integers(graph, part, artifact)
        why = _first(lint(graph))
        if why is not None:
            release(graph)
            self.say(f"{part.name} is lowered in fp16: {why}")
            artifact = as_artifact(part, ())
            graph = write_graph(float_graph(part, artifact), program)
            audit_float(graph, part, artifact)
            _refuse(part, _first(lint(graph)))
        operations = tuple(_operations(graph, artifact))
        release(graph)
        names = [site.layer for site in artifact.sites if site.operand == "input"]
        row = {"graph": f"{FOLDER}/{part.name}/{graph_in(program).name}", "between": BETWEEN, "integer": names}
        self.rows.append(row | self._compiled(part, artifact, graph_in(program)))
        return PartProgram(part.name, FLOAT if why else INTEGERS, operations)

    def _compiled(self, part: Part, artifact: Artifact, graph: Path) -> dict[str, Any]:
        """What Qualcomm's library is asked for, as for the network."""
        found: dict[str, Any] = {}
        if self.settings.check_build:
            from dq_toolchain.backends.qnn.htp.check import check_build

            soc = self.settings.chips[0] if self.settings.chips else EMULATED
            self.say(f"compiling {part.name} for {soc}")
            found["checked"] = check_build([graph], artifact, soc, self.say).to_json()
        if self.settings.chips:
            from dq_toolchain.backends.qnn.htp.contexts import write_contexts

            found["contexts"] = {
                soc: write_contexts([graph], self.bundle / soc / part.name, soc, self.say).to_json()
                for soc in self.settings.chips
            }
        return found


def _first(placements: tuple[Placement, ...]) -> str | None:
    """What breaks a rule of the compiler, None if nothing does."""
    return next((f"{each.name}: {each.why}" for each in placements if not each.integer), None)


def _refuse(part: Part, why: str | None) -> None:
    if why is not None:
        raise BackendError(f"{part.name} does not fit Qualcomm's NPU, {why}; {REMEDY}")


def _operations(graph: Any, artifact: Artifact) -> tuple[Operation, ...]:
    arithmetic = {site.layer: (ARITHMETIC, "") for site in artifact.sites}
    return tuple(operations_table(graph, arithmetic, BETWEEN, 1, (), "HTP", QUANTIZERS))
