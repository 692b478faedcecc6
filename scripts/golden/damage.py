"""Ways to spoil a bundle's folder and make its hashes and its seal good again, so that the check behind them is reached."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from dq_toolchain.toolchain.disk.files import seal, sha256, write_bytes, write_tensors
from dq_toolchain.toolchain.formats.bundle import JSON, RANGES
from dq_toolchain.toolchain.formats.bundle_checks import STEP_VECTORS
from dq_toolchain.toolchain.formats.reference import FILE

Damage = Callable[[Path], None]
"""Spoils the files of a bundle folder."""


def of_json(change: Callable[[dict[str, Any]], object]) -> Damage:
    """Changes bundle.json, which is sealed again."""

    def damage(folder: Path) -> None:
        data = json.loads((folder / JSON).read_text())
        change(data)
        write_bytes(folder / JSON, (json.dumps(seal(data)) + "\n").encode())

    return damage


def put(*keys: str | int, to: Any) -> Damage:
    """One value of bundle.json replaced, or added."""

    def change(data: Any) -> None:
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = to

    return of_json(change)


def drop(*keys: str | int) -> Damage:
    """One value of bundle.json taken out."""

    def change(data: Any) -> None:
        for key in keys[:-1]:
            data = data[key]
        del data[keys[-1]]

    return of_json(change)


def text(old: str, new: str) -> Damage:
    """What a JSON writer would not write: the text of bundle.json changed."""

    def damage(folder: Path) -> None:
        found = json.dumps(json.loads((folder / JSON).read_text()))
        assert old in found, old
        write_bytes(folder / JSON, found.replace(old, new, 1).encode())

    return damage


def tensors(file: str, change: Callable[[dict[str, Tensor]], object]) -> Damage:
    """Changes a file of tensors, whose hash and size are written anew."""

    def damage(folder: Path) -> None:
        found = load_file(folder / file)
        change(found)
        write_tensors(folder / file, found)
        digest, size = sha256(folder / file), (folder / file).stat().st_size
        of_json(lambda data: (data["files"].update({file: digest}), data["sizes"].update({file: size})))(folder)

    return damage


def reference(change: Callable[[dict[str, Tensor]], object]) -> Damage:
    return tensors(FILE, change)


def ranges(change: Callable[[dict[str, Tensor]], object]) -> Damage:
    return tensors(RANGES, change)


def step_vectors(change: Callable[[dict[str, Tensor]], object]) -> Damage:
    return tensors(STEP_VECTORS, change)
