"""An .aimodel on disk: three files, of which one is the program and one its SHA-256."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from dq_toolchain.backends.common.quiet import quiet
from dq_toolchain.backends.coreai.ir import Program, read, resource_name, stored_bytes
from dq_toolchain.backends.coreai.patch import ALIGNMENT
from dq_toolchain.backends.coreai.vendor import NOISE, authoring
from dq_toolchain.toolchain.disk.files import sha256
from dq_toolchain.toolchain.errors import BackendError

BYTECODE, HASH, METADATA = FILES = ("main.mlirb", "main.hash", "metadata.json")
PER_OPERATION, FIXED = 160, 4096
"""Bytes: what a file holds at most for an operation, and beside all of them. Measured: 70 to 107 for an operation."""
MAGIC = b"ML\xefR"
AGAIN = "run `dq-toolchain export --target coreai` again"


def check_hash(asset: Path) -> None:
    """Core AI reads a program whose hash does not match; this does not.

    Raises:
        BackendError: a file is missing, or the program is not the one that was saved.
    """
    try:
        stored, found = (asset / HASH).read_bytes(), sha256(asset / BYTECODE)
        json.loads((asset / METADATA).read_bytes())  # Core AI executes a program without it, no device opens it
    except (OSError, ValueError) as error:
        raise BackendError(f"{asset} is no whole .aimodel: {error}; {AGAIN}") from error
    if found != stored.hex():
        raise BackendError(f"{asset / BYTECODE} is damaged, its SHA-256 is not that of {HASH}; {AGAIN}")
    with (asset / BYTECODE).open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:  # Core AI ends the whole process then, without a word
            raise BackendError(f"{asset / BYTECODE} is no MLIR bytecode; {AGAIN}")


def load(asset: Path) -> Program:
    """Every graph of an asset. Raises BackendError: it is damaged, or Core AI cannot read it."""
    check_hash(asset)
    try:
        with quiet(NOISE):
            return read(authoring().AIModelAsset.load(asset).program)
    except (RuntimeError, ValueError, KeyError, IndexError) as error:
        text = " ".join(str(error).split())[:300]
        raise BackendError(f"{asset} cannot be opened: {text}; {AGAIN}") from error


def function_names(asset: Path) -> Collection[str]:
    """Functions that can be called. Raises BackendError: see ``load``."""
    return tuple(load(asset).functions)


def most_bytes(program: Program) -> int:
    """What the file of a program takes at most."""
    blobs: dict[str, int] = {}
    size = FIXED
    for graph in program.graphs.values():
        size += PER_OPERATION * len(graph.operations)
        for op in (op for op in graph.operations if op.name == "constant"):
            stored, blob = stored_bytes(op.out.dtype, op.out.shape), resource_name(op.raw)
            if blob is None:
                size += stored
            else:
                blobs[blob] = stored + 2 * ALIGNMENT
    return size + sum(blobs.values())


def reserve(folder: Path, size: int) -> None:
    """Raise OSError if a folder has no room for ``size`` bytes: Core AI ends the whole process then, without a word."""
    if sys.platform == "linux":
        with tempfile.TemporaryFile(dir=folder) as room:
            os.posix_fallocate(room.fileno(), 0, size)
    elif shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def save(owner: Any, asset: Path) -> None:
    """Write the vendor's program; what was there is replaced. The date is left out, so equal programs are equal files.

    Raises:
        BackendError: it cannot be written.
    """
    try:
        reserve(asset.parent, most_bytes(read(owner)))
        with quiet(NOISE):
            saved = owner.save_asset(asset)
            saved.update_metadata(lambda metadata: setattr(metadata, "creation_date", 0.0))
        metadata = json.loads((asset / METADATA).read_bytes())  # Apple writes its keys in an order of chance
        (asset / METADATA).write_text(json.dumps(metadata, indent=2, sort_keys=True) + "\n")
    except (RuntimeError, OSError) as error:
        cause = error.__cause__ or error
        text = " ".join(str(cause).split())[:300]
        raise BackendError(f"{asset} cannot be written: {text}; free some space or name another --out") from error
