"""An .aimodel on disk: three files, of which one is the program and one its SHA-256."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from dq_toolchain.backends.common.quiet import quiet
from dq_toolchain.backends.coreai.ir import Program, read
from dq_toolchain.backends.coreai.vendor import NOISE, authoring
from dq_toolchain.toolchain.disk.files import sha256
from dq_toolchain.toolchain.errors import BackendError

BYTECODE, HASH, METADATA = FILES = ("main.mlirb", "main.hash", "metadata.json")
AGAIN = "run `dq-toolchain export --target coreai` again"


def check_hash(asset: Path) -> None:
    """Core AI reads a program whose hash does not match; this does not.

    Raises:
        BackendError: a file is missing, or the program is not the one that was saved.
    """
    try:
        stored, found = (asset / HASH).read_bytes(), sha256(asset / BYTECODE)
    except OSError as error:
        raise BackendError(f"{asset} is no whole .aimodel: {error}; {AGAIN}") from error
    if found != stored.hex():
        raise BackendError(f"{asset / BYTECODE} is damaged, its SHA-256 is not that of {HASH}; {AGAIN}")


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


def save(owner: Any, asset: Path) -> None:
    """Write the vendor's program; what was there is replaced. The date is left out, so equal programs are equal files.

    Raises:
        BackendError: it cannot be written.
    """
    try:
        with quiet(NOISE):
            saved = owner.save_asset(asset)
            saved.update_metadata(lambda metadata: setattr(metadata, "creation_date", 0.0))
        metadata = json.loads((asset / METADATA).read_bytes())  # Apple writes its keys in an order of chance
        (asset / METADATA).write_text(json.dumps(metadata, indent=2, sort_keys=True) + "\n")
    except (RuntimeError, OSError) as error:
        cause = error.__cause__ or error
        text = " ".join(str(cause).split())[:300]
        raise BackendError(f"{asset} cannot be written: {text}; free some space or name another --out") from error
