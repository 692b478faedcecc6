"""A folder of files is old or new, and for the moment of moving neither; never half of both."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dq_toolchain.toolchain.disk import staging, temporary
from dq_toolchain.toolchain.disk.files import write_bytes
from dq_toolchain.toolchain.disk.staging import check_places, staged
from dq_toolchain.toolchain.errors import ToolchainError

MANIFEST = "all.json"


def make(out: Path, content: str, names: tuple[str, ...] = ("a", "b")) -> None:
    with staged(out, MANIFEST, ("stale",)) as folder:
        for name in (*names, MANIFEST):
            write_bytes(folder / name, content.encode())
        (folder / "package").mkdir()
        write_bytes(folder / "package" / "inside", content.encode())


def content(out: Path) -> dict[str, str]:
    return {str(path.relative_to(out)): path.read_text() for path in out.rglob("*") if path.is_file()}


NEW = {"a": "new", "b": "new", "package/inside": "new", MANIFEST: "new"}


def test_a_new_folder_appears_and_an_old_one_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    make(out, "new")
    assert content(out) == NEW
    make(out, "old", ("a", "b", "stale"))
    (out / "notes").write_text("mine")
    (out / "package" / "of the old").write_text("old")
    make(out, "new")
    assert content(out) == NEW | {"notes": "mine"}
    assert [path.name for path in out.parent.iterdir()] == ["out"]


class Killed(BaseException):
    """As good as SIGKILL for what is on disk, if nothing cleans up."""


@pytest.mark.parametrize("when", range(18))
def test_a_kill_at_any_moment_leaves_the_old_one_or_none(
    when: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call that changes the disk is the last one, in turn; at the end nothing of the killed is left."""
    out, count = tmp_path / "out", [0]
    make(out, "old")

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            count[0] += 1
            if count[0] > when:
                raise Killed
            return real(*arguments, **keywords)

        return call

    with monkeypatch.context() as patch:
        for owner, name in ((os, "replace"), (os, "rename"), (Path, "unlink"), (shutil, "rmtree")):
            patch.setattr(owner, name, counted(getattr(owner, name)))
        try:
            make(out, "new")
            whole = True
        except Killed:
            whole = False
    found = content(out)
    assert len(set(found.values())) == 1 or MANIFEST not in found
    assert not whole or found == NEW
    assert whole == (when >= 17)  # so many calls there are
    monkeypatch.setattr(temporary, "_swept", set())
    monkeypatch.setattr(temporary, "_is_left_over", lambda path: path.name.endswith(".tmp"))  # its process is dead
    make(out, "new")
    assert content(out) == NEW
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_keeps_the_old_one_and_names_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    make(out, "old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ToolchainError, match=r"cannot write \S*/out/a: No space left on device; .*--out"):
        make(out, "new")
    assert set(content(out).values()) == {"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "far")
    make(tmp_path / "out", "new")
    assert (tmp_path / "out").is_symlink()
    assert content(tmp_path / "far") == NEW


def link(place: Path) -> None:
    target = place.parent / "target"
    target.write_text("kept")
    place.symlink_to(target)


STANDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "link": (link, "a link"), "fifo": (os.mkfifo, "a FIFO"), "folder": (Path.mkdir, "a folder"),
}  # fmt: skip


@pytest.mark.parametrize("kind", STANDS)
def test_what_no_older_one_left_is_refused_before_anything_moves(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(out, "old")
    (out / "b").unlink()
    STANDS[kind][0](out / "b")
    for attempt in (lambda: make(out, "new"), lambda: check_places(out, ("a", "b"))):
        with pytest.raises(
            ToolchainError, match=rf"cannot write \S*/out/b: what stands there is {STANDS[kind][1]}; move it"
        ):
            attempt()
    assert {(out / name).read_text() for name in ("a", MANIFEST)} == {"old"}
    check_places(out, ("a", MANIFEST), ("package",))
    check_places(tmp_path / "nothing there", ("a",))


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    for attempt in (lambda: make(tmp_path / "out", "new"), lambda: check_places(tmp_path / "out", ())):
        with pytest.raises(ToolchainError, match=r"out: what stands there is a file"):
            attempt()
    assert (tmp_path / "out").read_text() == "mine"
    assert staging.real_place(tmp_path / "out") == tmp_path / "out"
