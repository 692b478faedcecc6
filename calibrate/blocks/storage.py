"""What block reconstruction may take: rows per pass, and where the records of rows go, memory or disk."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dq_toolchain.toolchain.disk.temporary import temporary_beside
from dq_toolchain.toolchain.errors import ToolchainError

MOST_IN_MEMORY = 2 * 2**30
SHARE_OF_DISK = 4
SHARE_OF_DEVICE = 4
"""A record may take this part of the device's memory that is free when it is made; there are a few at a time."""


@dataclass(frozen=True)
class Storage:
    """Attributes:
    at_once: rows per pass when recording and validating.
    folder: for records on disk, in files that have no name and vanish with the process; None keeps them in memory.
    device: in whose memory a record goes if it has room; None for where the rows are.
    """

    at_once: int = 32
    folder: Path | None = None
    device: torch.device | None = None

    @property
    def replayed(self) -> int:
        """Bytes that outputs of finished units may take, per network; units that would go beyond are computed every time."""
        return MOST_IN_MEMORY if self.folder is None else shutil.disk_usage(self.folder).free // SHARE_OF_DISK

    def empty(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """A tensor to be filled: in memory, or mapped from disk.

        Args:
            device: where it goes unless it is to go, and fits, elsewhere.
        Raises:
            ToolchainError: the disk is full.
        """
        numel = math.prod(shape)
        size = numel * dtype.itemsize
        if self.folder is None:
            place = device if self.device is None or size > _free(self.device) / SHARE_OF_DEVICE else self.device
            return torch.empty(tuple(shape), dtype=dtype, device=place)
        if size > shutil.disk_usage(self.folder).free:
            raise ToolchainError(
                f"{self.folder}: records of {size / 2**30:.1f} GiB do not fit on the disk; lower [blocks] rows or free space"
            )
        path = temporary_beside(self.folder / "records")  # should the process be killed before it has no name
        try:
            with path.open("xb") as file:
                file.truncate(max(1, size))
            return torch.from_file(str(path), shared=True, size=numel, dtype=dtype).view(tuple(shape))
        finally:
            path.unlink(missing_ok=True)


def _free(device: torch.device) -> float:
    """Bytes that a GPU has left, with those that torch keeps for the next tensor; elsewhere there is no such bound."""
    if device.type != "cuda":
        return math.inf
    return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


IN_MEMORY = Storage()
