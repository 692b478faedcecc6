"""Tensors in pages of files instead of memory of the process: pages that the system can drop and read again.

A file loses its name as soon as it is mapped, so that it goes with the last tensor that lies in it, also when the process is
killed; nothing of it is ever used by a later run. Between its making and its mapping it is a temporary of this process
(``temporary_beside``), which the next run removes.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dq_toolchain.toolchain.disk import reading
from dq_toolchain.toolchain.disk.temporary import temporary_beside
from dq_toolchain.toolchain.errors import ToolchainError

SMALLEST = 2**16
"""Values; fewer stay in memory, where a mapping of their own would save nothing."""
PIECE = 2**18
"""Values that are written at a time. With 64 times as many, what a check makes of each left holes in the allocator's memory: a
quarter of a byte for every value."""


@dataclass(frozen=True)
class Spill:
    """Where files of tensors are made: ``folder`` should be on a disk, not in memory as a tmpfs is."""

    folder: Path

    def require(self, size: int) -> None:
        """Raise ToolchainError unless so many bytes are free."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
        except OSError as error:
            raise self._refusal(reading.reason(error)) from error
        if free < size:
            raise self._refusal(f"{size / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free")

    def keep(
        self, tensor: Tensor, dtype: torch.dtype | None = None, check: Callable[[Tensor], None] = lambda _piece: None
    ) -> Tensor:
        """The same values on the CPU, contiguous; in pages of a file unless they are fewer than SMALLEST.

        Args:
            dtype: to convert to; None: the tensor's own.
            check: is given every piece that is written, flat, and may raise.
        Raises:
            ToolchainError: the file cannot be written.
        """
        dtype = tensor.dtype if dtype is None else dtype
        if tensor.numel() < SMALLEST:
            small = tensor.detach().to("cpu", dtype).contiguous()
            check(small.reshape(-1))
            return small
        path: Path | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = temporary_beside(self.folder / "spill")
            with path.open("wb") as file:
                for piece in tensor.detach().reshape(-1).split(PIECE):
                    piece = piece.to("cpu", dtype)
                    check(piece)
                    file.write(memoryview(piece.view(torch.uint8).numpy()))
            mapped = torch.from_file(str(path), shared=False, size=tensor.numel(), dtype=dtype)
        except (OSError, RuntimeError) as error:
            raise self._refusal(reading.reason(error)) from error
        finally:
            if path is not None:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
        return mapped.view(tensor.shape)

    @torch.no_grad()
    def keep_parameters(self, network: nn.Module, but: Collection[str]) -> None:
        """Put the network's parameters into pages of files, in place, less those named in ``but``, and less those that are not
        contiguous, since layers might sum in another order then. Raises ToolchainError."""
        for name, parameter in network.named_parameters():
            if name not in but and parameter.is_contiguous():
                parameter.data = self.keep(parameter)

    def _refusal(self, why: str) -> ToolchainError:
        return ToolchainError(
            f"weights cannot be put on disk in {self.folder}: {why}; free some, choose a folder with space that you may write "
            "to (--out), or leave --offload out, which takes more memory"
        )
