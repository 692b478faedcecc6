"""Text encoders and decoders of a pipeline for Core ML: integer weights, float arithmetic; written, audited, executed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from dq_toolchain.backends.base import RunPart
from dq_toolchain.backends.common.qdq.export import MAIN
from dq_toolchain.backends.common.qdq.part_audit import audit_part
from dq_toolchain.backends.common.qdq.parts import part_network
from dq_toolchain.backends.coreml.graph.convert import write_package
from dq_toolchain.backends.coreml.graph.gelu import with_tanh_gelu
from dq_toolchain.backends.coreml.graph.group_norm import without_group_norm
from dq_toolchain.backends.coreml.graph.operators import OPERATORS
from dq_toolchain.backends.coreml.interpreter.program import load
from dq_toolchain.backends.coreml.package import STRAY, SUFFIX
from dq_toolchain.backends.coreml.proof.operations import operations_table
from dq_toolchain.backends.coreml.proof.reading import MILReader
from dq_toolchain.backends.coreml.runtime.device import opened
from dq_toolchain.backends.coreml.settings import Settings
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.bundle import Operation
from dq_toolchain.toolchain.parts.part import Part, example


def write_part(part: Part, folder: Path, settings: Settings, half: bool) -> tuple[str, Iterable[Operation]]:
    """Write NAME.mlpackage, read it back, and compare its integers with the part's; see ``common.qdq.part_export.WritePart``."""
    package = folder / f"{part.name}{SUFFIX}"
    network = without_group_norm(with_tanh_gelu(part_network(part, OPERATORS, half)))
    arguments, outputs = [example(port) for port in part.inputs], [port.name for port in part.outputs]
    write_package(network, arguments, part.inputs, outputs, settings, package, half=half, what=part.name)
    (package / STRAY).unlink(missing_ok=True)
    del network
    program = load(package)[MAIN]
    audit_part(program, part, half, MILReader())
    return package.name, operations_table([program])


def open_part(program: Path, inputs: Sequence[str], outputs: Sequence[str], threads: int | None = None) -> RunPart:
    """What executes one part; see ``base.OpenPart``."""
    if threads is not None:
        raise BackendError("threads cannot be set for target 'coreml': Core ML chooses them; leave --threads out")
    function = opened(program, (MAIN,))[MAIN]

    def execute(given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        found = function({name: given[name] for name in inputs})
        return {name: found[name] for name in outputs}

    return execute
