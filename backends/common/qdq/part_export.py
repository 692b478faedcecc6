"""The order of the export of a part: what precision it can have, write and audit, say what it became."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

from dq_toolchain.backends.base import PartProgram, Say
from dq_toolchain.backends.common.part_calls import reference_calls
from dq_toolchain.backends.common.parts import LowerPart
from dq_toolchain.backends.common.qdq.part_range import precision_of
from dq_toolchain.backends.common.qdq.settings import QDQSettings
from dq_toolchain.toolchain.formats.bundle import Operation
from dq_toolchain.toolchain.parts.artifact import PartsArtifact
from dq_toolchain.toolchain.parts.part import Part
from dq_toolchain.toolchain.parts.pipeline import FOLDER

SettingsT = TypeVar("SettingsT", bound=QDQSettings, contravariant=True)
ATTENTION = ("batch_matmul", "matmul", "softmax", "scaled_dot_product_attention")
WHY = "attention of text encoders and decoders is computed in float"


class WritePart(Protocol[SettingsT]):
    """Convert a part, write it into ``folder``, read it back and audit it; returns its name there and its operations.

    Args:
        half: in fp16.
    Raises:
        BackendError: the vendor's library refuses the part, or the file differs from it.
    """

    def __call__(
        self, part: Part, folder: Path, settings: SettingsT, half: bool
    ) -> tuple[str, Iterable[Operation]]: ...


def lowering_of(
    write: WritePart[SettingsT], found: PartsArtifact, calibration: Path, settings: SettingsT, say: Say
) -> LowerPart:
    """What ``common.parts.add_parts`` calls.

    Args:
        calibration: folder of the artifact.
    """

    def lower(part: Part, folder: Path) -> PartProgram:
        calls = reference_calls(found, part, calibration / FOLDER)
        precision = precision_of(part, calls, settings.precision == "fp16")
        if settings.precision == "fp16" and not precision.half:
            say(f"{part.name}: {precision.words}")
        name, rows = write(part, folder, settings, precision.half)
        operations = (
            replace(row, why=WHY) if row.name in ATTENTION and row.arithmetic == "float" else row for row in rows
        )
        return PartProgram(name, precision.words, tuple(operations))

    return lower
