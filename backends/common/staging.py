"""A bundle folder appears whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from dq_toolchain.toolchain.disk.staging import staged
from dq_toolchain.toolchain.formats.bundle import JSON, RANGES
from dq_toolchain.toolchain.formats.bundle_checks import OTHER_STEP_VECTORS, STEP_VECTORS
from dq_toolchain.toolchain.formats.reference import references_in
from dq_toolchain.toolchain.parts.pipeline import FOLDER as PARTS
from dq_toolchain.toolchain.parts.pipeline import JSON as PIPELINE


def staging(out: Path, made_of_it: Sequence[str] = ()) -> AbstractContextManager[Path]:
    """A folder beside ``out`` that takes its place at the end; an older bundle disappears first, other files stay.

    Args:
        made_of_it: folders of what a device made of the older bundle, which hold its numbers and disappear too.
    Raises:
        ToolchainError: it cannot be written.
    """
    vectors = sorted(path.name for path in out.glob(OTHER_STEP_VECTORS) if path.is_file())
    return staged(out, JSON, (RANGES, STEP_VECTORS, PIPELINE, *vectors, *references_in(out)), (PARTS, *made_of_it))
