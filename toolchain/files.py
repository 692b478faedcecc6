"""Atomic writes and hashes: a file of ours is either whole or absent.

Every writer in the project goes through here, so that a kill or a full disk never leaves a half-written file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dq_toolchain.toolchain import reading
from dq_toolchain.toolchain.errors import ArtifactError, ToolchainError


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.chmod(0o644)  # safetensors creates files that only their owner can read
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise ToolchainError(f"cannot write {path}: {reading.reason(error)}; choose a folder with space that you may write to "
                             "(--out)") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises ToolchainError."""
    with _replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write JSON whole or not at all; NaN and infinity are refused. Raises ToolchainError."""
    try:
        text = json.dumps(data, indent=1, allow_nan=False)
    except ValueError as error:
        raise ToolchainError(f"cannot write {path}: a figure is NaN or infinite, which JSON does not hold; nothing was "
                             "written") from error
    write_bytes(path, f"{text}\n".encode())


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write safetensors whole or not at all. Raises ToolchainError."""
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with _replacing(path) as temporary:
        save_file(ready, temporary, metadata=dict(metadata) if metadata else None)


def copy(source: Path, target: Path) -> None:
    """Copy a file whole or not at all. Raises ToolchainError."""
    with _replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def read_json(path: Path, schema: str, version: int, remedy: str) -> dict[str, Any]:
    """Read one of our JSON files and check its kind and version.

    Raises:
        ArtifactError: missing, unreadable, not JSON, another ``schema`` or ``schema_version``.
    """
    data = reading.read_json(path, error=ArtifactError, remedy=remedy)
    if data.get("schema") != schema:
        raise ArtifactError(f"{path} is not a {schema} file (schema: got {data.get('schema')!r}, allowed {schema!r}); {remedy}")
    if data.get("schema_version") != version:
        raise ArtifactError(f"{path}: schema_version {data.get('schema_version')!r} is not supported, allowed {version}; {remedy}")
    return data


def read_tensors(path: Path, remedy: str) -> dict[str, Tensor]:
    """All tensors of a safetensors file. Raises ArtifactError when it is missing or damaged."""
    return read_tensors_and_metadata(path, remedy)[0]


def read_tensors_and_metadata(path: Path, remedy: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a safetensors file and its string metadata. Raises ArtifactError."""
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise ArtifactError(f"cannot read {path}: {reading.reason(error)}; {remedy}") from error


def check_hashes(folder: Path, expected: Mapping[str, str], remedy: str) -> None:
    """Compare the files of a folder with recorded sha256 digests. Raises ArtifactError naming the first that differs."""
    for name, digest in expected.items():
        path = folder / name
        if not path.is_file():
            raise ArtifactError(f"{path} is missing; {remedy}")
        if sha256(path) != digest:
            raise ArtifactError(f"{path} was changed after it was written (sha256 differs from the one recorded); {remedy}")


SEAL = "content_sha256"


def _content_hash(data: Mapping[str, Any]) -> str:
    content = {name: value for name, value in data.items() if name != SEAL}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def seal(data: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object with its own hash, so that an edit is seen (by mistake, not by malice) whatever it changes."""
    return {**data, SEAL: _content_hash(data)}


def check_seal(path: Path, data: Mapping[str, Any], remedy: str) -> None:
    """Raise ArtifactError unless the object read from ``path`` is what ``seal`` hashed."""
    if data.get(SEAL) != _content_hash(data):
        raise ArtifactError(f"{path} was changed after it was written ({SEAL} differs from its content); {remedy}")
