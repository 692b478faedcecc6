"""Text encoders and decoders of a pipeline for ExecuTorch: lowered, audited, executed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from dq_toolchain.backends.base import PartProgram, RunPart
from dq_toolchain.backends.executorch.graph.parts import METHOD, part_program
from dq_toolchain.backends.executorch.proof.parts import audit_part
from dq_toolchain.backends.executorch.proof.pte_file import read_pte
from dq_toolchain.backends.executorch.runtime.device import Device
from dq_toolchain.toolchain.disk.files import write_bytes
from dq_toolchain.toolchain.parts.part import Part

PRECISION = "int8 weights per channel, int8 activations"


def lower_part(part: Part, folder: Path) -> PartProgram:
    """Write NAME.pte, read it back, and compare its integers with the part's. Raises BackendError."""
    name = f"{part.name}.pte"
    write_bytes(folder / name, part_program(part))
    return PartProgram(name, PRECISION, audit_part(read_pte(folder / name), part))


def open_part(program: Path, inputs: Sequence[str], outputs: Sequence[str], threads: int | None = None) -> RunPart:
    """What executes one part; see ``base.Backend``."""
    device = Device(program, (METHOD,))

    def execute(given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        found = device.outputs(METHOD, [given[name] for name in inputs])
        return dict(zip(outputs, found, strict=True))

    return execute
