"""A folder of files appears whole or not at all: an artifact or a bundle is made beside its place and moved there at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from dq_toolchain.toolchain.disk.reading import reason
from dq_toolchain.toolchain.disk.temporary import kind_of, sweep, temporary_beside
from dq_toolchain.toolchain.errors import ToolchainError


@contextlib.contextmanager
def staged(out: Path, manifest: str, stale: Sequence[str] = (), stale_folders: Sequence[str] = ()) -> Iterator[Path]:
    """A folder beside ``out`` whose files take their places in it at the end.

    Until then ``out`` is as it was; an error or a kill leaves it so. While files move, which takes no longer than their
    renaming, there is no manifest, so that nothing half old and half new ever loads. Files that the folder does not have stay.

    Args:
        manifest: the file without which the folder counts for nothing; it moves last.
        stale, stale_folders: files and folders of an older one that go even if there is no new one.
    Raises:
        ToolchainError: it cannot be written, or something that is no file or folder of ours stands in the way.
    """
    folder: Path | None = None
    out = real_place(out)
    try:
        folder = temporary_beside(out)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        yield folder
        _move(folder, out, manifest, stale, stale_folders)
    except ToolchainError as error:  # said of the place that the user knows
        raise type(error)(str(error).replace(str(folder), str(out))) from error
    except OSError as error:
        raise ToolchainError(
            f"cannot write {out}: {reason(error)}; choose a folder with space that you may write to (--out)"
        ) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _move(folder: Path, out: Path, manifest: str, stale: Sequence[str], stale_folders: Sequence[str]) -> None:
    if not os.path.lexists(out):
        os.rename(folder, out)
        return
    files = sorted(folder.iterdir(), key=lambda path: path.name == manifest)
    names = [path.name for path in files if path.is_file()]
    check_places(out, (*names, *stale), [*(path.name for path in files if path.is_dir()), *stale_folders])
    sweep(out)
    for name in (manifest, *stale):
        (out / name).unlink(missing_ok=True)
    for name in stale_folders:
        shutil.rmtree(out / name, ignore_errors=True)
    for path in files:
        place = out / path.name
        if place.is_dir():
            shutil.rmtree(place)  # a package: os.replace takes no folder that holds something
        os.replace(path, place)
    _flush(out)


def real_place(out: Path) -> Path:
    """Where a link leads, so that moving stays within one disk and the link stays a link."""
    return Path(os.path.realpath(out)) if out.is_symlink() else out


def check_places(out: Path, files: Sequence[str], folders: Sequence[str] = ()) -> None:
    """Raise ToolchainError unless what stands in the way is what an older one would have left; also to be called before
    long work."""
    out = real_place(out)
    for place, fits in [
        (out, Path.is_dir),
        *((out / n, Path.is_file) for n in files),
        *((out / n, Path.is_dir) for n in folders),
    ]:
        if os.path.lexists(place) and (place.is_symlink() or not fits(place)):
            raise ToolchainError(
                f"cannot write {place}: what stands there is {kind_of(place)}; move it away, or choose another folder (--out)"
            )


def _flush(folder: Path) -> None:
    """Make the new names last through a power cut, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
