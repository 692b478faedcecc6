"""Atomic writes and hashes: a file of ours is either whole or absent.

Every writer in the project goes through here, so that a kill or a full disk never leaves a half-written file. A link is
followed, never replaced; what is no regular file (a device, a FIFO, a folder) is neither replaced nor waited on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from dq_toolchain.toolchain.disk import reading
from dq_toolchain.toolchain.disk.temporary import kind_of, temporary_beside
from dq_toolchain.toolchain.errors import ArtifactError, ToolchainError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        target = _file_behind(path)
        temporary = temporary_beside(target)
        yield temporary
        temporary.chmod(0o644)  # safetensors creates files that only their owner can read
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except (OSError, SafetensorError) as error:
        raise ToolchainError(
            f"cannot write {path}: {reading.reason(error)}; choose a folder with space that you may write to (--out)"
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _file_behind(path: Path) -> Path:
    """Where the content goes: the path, or the file that a link leads to. Raises ToolchainError: it is no regular file."""
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    if os.path.lexists(target) and not target.is_file():
        raise ToolchainError(
            f"cannot write {path}: it is {kind_of(target)}, no regular file; name a file, or a path where "
            "there is none yet"
        )
    return target


def discard(path: Path) -> None:
    """Remove a file that a new one will replace, if it is there; a link stays. Raises ToolchainError: no regular file."""
    try:
        _file_behind(path).unlink(missing_ok=True)
    except OSError as error:
        raise ToolchainError(
            f"cannot write {path}: {reading.reason(error)}; choose a folder that you may write to"
        ) from error


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises ToolchainError."""
    with _replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write JSON whole or not at all. Raises ToolchainError: also for what JSON does not hold, naming the key."""
    require_json(data, f"cannot write {path}")
    write_bytes(path, f"{json.dumps(data, indent=1, allow_nan=False)}\n".encode())


def require_json(data: Mapping[str, Any], what: str = "cannot be kept") -> None:
    """Raise ToolchainError unless JSON holds all of it; to be called before long work whose result goes there."""
    _, unfit = plain(data)
    if unfit:
        raise ToolchainError(
            f"{what}: {unfit[0]} is NaN, infinite or of a kind that JSON does not hold; nothing was written"
        )


def plain(data: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The same as JSON holds it, with None for what it does not hold, and the places of those, such as ``stages.0.loss``."""
    unfit: list[str] = []

    def convert(value: Any, place: str) -> Any:
        if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
            return value
        if isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value):
            return value
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return {key: convert(each, f"{place}.{key}" if place else key) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [convert(each, f"{place}.{index}") for index, each in enumerate(value)]
        unfit.append(place)
        return None

    return convert(data, ""), unfit


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write safetensors whole or not at all. Raises ToolchainError."""
    with _replacing(path) as temporary:
        _save(temporary, tensors, metadata)


def write_hashed_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Like ``write_tensors``; the sha256 of what was written, whatever lies at ``path`` a moment later."""
    with _replacing(path) as temporary:
        _save(temporary, tensors, None)
        digest = sha256(temporary)
    return digest


def _save(temporary: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None) -> None:
    from safetensors.torch import save_file  # imports torch, which what only reads does without

    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
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
        raise ArtifactError(
            f"{path} is not a {schema} file (schema: got {data.get('schema')!r}, allowed {schema!r}); {remedy}"
        )
    if data.get("schema_version") != version:
        raise ArtifactError(
            f"{path}: schema_version {data.get('schema_version')!r} is not supported, allowed {version}; {remedy}"
        )
    return data


def read_tensors(path: Path, remedy: str) -> dict[str, Tensor]:
    """All tensors of a safetensors file. Raises ArtifactError when it is missing or damaged."""
    return read_tensors_and_metadata(path, remedy)[0]


def read_arrays(path: Path, remedy: str) -> dict[str, NDArray[Any]]:
    """The same as numpy's arrays, without torch: for what is shown. Raises ArtifactError."""
    with _opened(path, remedy, "numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def read_tensors_and_metadata(path: Path, remedy: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a safetensors file and its string metadata. Raises ArtifactError."""
    with _opened(path, remedy) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


def read_metadata(path: Path, remedy: str) -> dict[str, str]:
    """The string metadata of a safetensors file, without its tensors. Raises ArtifactError."""
    with _opened(path, remedy, "numpy") as file:
        return dict(file.metadata() or {})


@contextlib.contextmanager
def _opened(path: Path, remedy: str, framework: str = "pt") -> Iterator[Any]:
    try:
        require_regular(path)
        with safe_open(str(path), framework=framework) as file:
            yield file
    except (OSError, SafetensorError, ValueError) as error:
        raise ArtifactError(f"cannot read {path}: {reading.reason(error)}; {remedy}") from error


def require_regular(path: Path) -> None:
    """Raise OSError unless the path, or what a link leads to, is a regular file: opening a FIFO would wait for ever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(f"it is {kind_of(path)}, no regular file")


def check_hashes(folder: Path, expected: Mapping[str, str], remedy: str) -> None:
    """Compare the files of a folder with recorded sha256 digests. Raises ArtifactError naming the first that differs."""
    for name, digest in expected.items():
        path = folder / name
        if not path.is_file():
            raise ArtifactError(f"{path} is missing; {remedy}")
        if sha256(path) != digest:
            raise ArtifactError(
                f"{path} was changed after it was written (sha256 differs from the one recorded); {remedy}"
            )


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
