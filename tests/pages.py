"""Whether a tensor lies in pages of a file, as Linux tells of this process."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor


def file_of(tensor: Tensor) -> str | None:
    """The file that the tensor's memory is mapped from, " (deleted)" at its end if it has no name any more; None: of no file."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        span, _rights, _offset, _device, inode, *name = line.split(maxsplit=5)
        begin, end = (int(each, 16) for each in span.split("-"))
        if begin <= tensor.data_ptr() < end:
            return name[0] if name and inode != "0" else None
    return None
