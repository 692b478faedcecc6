"""A bundle folder appears whole or not at all."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from dq_toolchain.toolchain.disk.staging import staged
from dq_toolchain.toolchain.formats.bundle import JSON, RANGES
from dq_toolchain.toolchain.formats.reference import references_in


def staging(out: Path) -> AbstractContextManager[Path]:
    """A folder beside ``out`` that takes its place at the end; an older bundle disappears first, other files stay.

    Raises:
        ToolchainError: it cannot be written.
    """
    return staged(out, JSON, (RANGES, *references_in(out)))
