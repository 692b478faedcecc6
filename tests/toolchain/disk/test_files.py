"""A file of ours is whole or absent; what is read back is checked."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from dq_toolchain.toolchain.disk.files import (
    check_hashes,
    check_seal,
    copy,
    plain,
    read_json,
    read_metadata,
    read_tensors,
    read_tensors_and_metadata,
    require_json,
    seal,
    sha256,
    write_bytes,
    write_hashed_tensors,
    write_json,
    write_tensors,
)
from dq_toolchain.toolchain.errors import ArtifactError, ToolchainError

OLD = b"the old content"


def half_then_full_disk(*arguments: Any, **_: Any) -> None:
    target = next(a for a in arguments if isinstance(a, Path) and a.name.endswith(".tmp"))
    with target.open("wb") as stream:
        stream.write(b"half")
    raise OSError(28, "No space left on device")


def no_fsync(_descriptor: int) -> None:
    raise OSError(5, "Input/output error")


WRITES: dict[str, tuple[Callable[[Path], None], Any, str]] = {
    "bytes": (lambda path: write_bytes(path, b"new"), Path, "write_bytes"),
    "json": (lambda path: write_json(path, {"new": 1}), Path, "write_bytes"),
    "tensors": (lambda path: write_tensors(path, {"new": torch.zeros(3)}), safetensors.torch, "save_file"),
    "copy": (lambda path: copy(Path(__file__), path), shutil, "copyfile"),
}


@pytest.mark.parametrize("existed", [True, False])
@pytest.mark.parametrize("kind", WRITES)
def test_a_failing_write_leaves_the_old_file_and_no_temporary(
    kind: str, existed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    if existed:
        path.write_bytes(OLD)
    write, owner, function = WRITES[kind]
    with monkeypatch.context() as patch:
        patch.setattr(owner, function, half_then_full_disk)
        with pytest.raises(ToolchainError, match=r"cannot write .*file: No space left on device; .*--out"):
            write(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_fsync)
        with pytest.raises(ToolchainError, match="Input/output error"):
            write(path)
    assert [p.name for p in tmp_path.iterdir()] == (["file"] if existed else [])
    assert not existed or path.read_bytes() == OLD
    write(path)
    assert path.read_bytes() != OLD
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_folders_are_made_and_a_file_in_their_place_is_refused(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a" / "b" / "c", b"x")
    assert (tmp_path / "a" / "b" / "c").read_bytes() == b"x"
    with pytest.raises(ToolchainError, match=r"cannot write .*c.d"):
        write_bytes(tmp_path / "a" / "b" / "c" / "d", b"x")


UNFIT: list[tuple[Any, str]] = [
    ({"value": [1, float("nan")]}, "value.1"), ({"a": {"b": float("inf")}}, "a.b"), ({"a": {"b": {1: 2}}}, "a.b"),
    ({"path": Path("x")}, "path"), ({"a": [{"t": torch.zeros(1)}]}, "a.0.t"), ({"text": "\ud800"}, "text"), ({"set": {1}}, "set"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "place"), UNFIT)
def test_json_names_what_it_does_not_hold(data: dict[str, Any], place: str, tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match=rf"cannot write .*x\.json: {place} is NaN, infinite or of a kind"):
        write_json(tmp_path / "x.json", data)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ToolchainError, match=place):
        require_json(data)
    made, unfit = plain({"good": (1, 2.5, None, True, "ä"), **data})
    assert unfit == [place]
    write_json(tmp_path / "x.json", made)
    assert made["good"] == [1, 2.5, None, True, "ä"]


def test_a_hash_is_of_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "t"
    digest = write_hashed_tensors(path, {"a": torch.arange(3)})
    assert digest == sha256(path)
    assert read_metadata(path, "") == {}


def test_a_link_is_written_through_and_stays(tmp_path: Path) -> None:
    far, link = tmp_path / "far" / "file", tmp_path / "link"
    far.parent.mkdir()
    far.write_bytes(OLD)
    link.symlink_to(far)
    write_bytes(link, b"new")
    assert link.is_symlink()
    assert far.read_bytes() == b"new"
    far.unlink()
    write_bytes(link, b"again")
    assert far.read_bytes() == b"again"
    assert [path.name for path in far.parent.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("fifo", "a FIFO"),
        ("device", "a device"),
        ("link to a device", "a device"),
        ("folder", "a folder"),
        ("link to itself", "a link"),
    ],
)
@pytest.mark.parametrize("how", WRITES)
def test_what_is_no_regular_file_is_neither_replaced_nor_waited_on(
    how: str, kind: str, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        try:
            os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))  # a null device of its own
        except PermissionError:
            pytest.skip("only root makes devices")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/null" if "device" in kind else path)
    before = path.lstat()
    with pytest.raises(ToolchainError, match=rf"cannot write .*file: it is {words}, no regular file"):
        WRITES[how][0](path)
    after = path.lstat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert len(list(tmp_path.iterdir())) == 1
    if kind != "folder":
        with pytest.raises(ArtifactError, match=r"cannot read .*; do this"):
            read_tensors(path, "do this")


def test_tensors_come_back_bit_equal_with_their_metadata(tmp_path: Path) -> None:
    base = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    tensors = {"view": base.t(), "slice": base[:, ::2], "int8": torch.arange(-4, 4, dtype=torch.int8)}
    write_tensors(tmp_path / "t", tensors, {"note": "x"})
    found, metadata = read_tensors_and_metadata(tmp_path / "t", "")
    assert metadata == {"note": "x"}
    assert all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in tensors.items()
    )


@pytest.mark.parametrize("damage", ["missing", "truncated", "empty", "folder", "not safetensors"])
def test_damaged_tensors_are_refused_by_name(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    write_tensors(path, {"a": torch.zeros(100)})
    data = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes({"truncated": data[:-1], "empty": b"", "not safetensors": b"PK\x03\x04" + data}[damage])
    with pytest.raises(ArtifactError, match=r"cannot read .*t\.safetensors: .*; do this"):
        read_tensors(path, "do this")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("{", "not valid JSON"),
        ("\xff", "not UTF-8 text"),
        ("[1]", "holds a list"),
        ("{}", "got None"),
        ('{"schema": "other", "schema_version": 1}', "got 'other', allowed 'kind'"),
        ('{"schema": "kind", "schema_version": 2}', "schema_version 2 is not supported, allowed 1"),
        ('{"schema": "kind"}', "schema_version None is not supported, allowed 1"),
    ],
)
def test_json_of_another_kind_or_version_is_refused(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ArtifactError, match=rf"x\.json.*{message}.*; do this$"):
        read_json(path, "kind", 1, "do this")


def test_hashes_name_the_file_that_differs(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"a")
    write_bytes(tmp_path / "b", b"b")
    assert sha256(tmp_path / "a") == hashlib.sha256(b"a").hexdigest()
    recorded = {name: sha256(tmp_path / name) for name in ("a", "b")}
    check_hashes(tmp_path, recorded, "")
    (tmp_path / "b").write_bytes(b"B")
    with pytest.raises(ArtifactError, match=r"/b was changed after it was written.*; do this"):
        check_hashes(tmp_path, recorded, "do this")
    (tmp_path / "b").unlink()
    with pytest.raises(ArtifactError, match=r"/b is missing"):
        check_hashes(tmp_path, recorded, "do this")


def test_a_seal_survives_the_file_and_shows_every_edit(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, seal({"schema": "kind", "schema_version": 1, "rows": ((0.1, 1e-300), (2, 3)), "text": "ä"}))
    data = read_json(path, "kind", 1, "")
    check_seal(path, data, "do this")
    for edited in (
        {**data, "rows": [[0.1, 1e-300], [2, 4]]},
        {**data, "more": 1},
        {k: v for k, v in data.items() if k != "text"},
        {k: v for k, v in data.items() if k != "content_sha256"},
    ):
        with pytest.raises(ArtifactError, match=r"x\.json was changed after it was written.*; do this"):
            check_seal(path, edited, "do this")
