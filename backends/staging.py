"""A bundle folder appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from dq_toolchain.toolchain.bundle import JSON, RANGES
from dq_toolchain.toolchain.errors import ToolchainError


@contextlib.contextmanager
def staging(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that takes its place at the end; an older bundle disappears first, other files stay.

    Raises:
        ToolchainError: it cannot be written.
    """
    folder = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        yield folder
        out.mkdir(exist_ok=True)
        (out / JSON).unlink(missing_ok=True)
        (out / RANGES).unlink(missing_ok=True)
        for path in sorted(folder.iterdir(), key=lambda path: path.name == JSON):
            if (out / path.name).is_dir():
                shutil.rmtree(out / path.name)  # a package: os.replace takes no folder that holds something
            os.replace(path, out / path.name)
    except OSError as error:
        raise ToolchainError(
            f"cannot write {out}: {error.strerror or error}; choose a folder with space that you may write to (--out)"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
