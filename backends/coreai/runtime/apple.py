"""Functions of an asset executed by Apple: its interpreter on Linux, Core AI itself on a Mac."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dq_toolchain.backends.common.quiet import quiet
from dq_toolchain.backends.coreai.asset import AGAIN, check_hash, reserve
from dq_toolchain.backends.coreai.vendor import NOISE, authoring, runtime
from dq_toolchain.toolchain.errors import BackendError

DTYPES = {torch.float32: np.float32, torch.float16: np.float16, torch.int64: np.int32, torch.int8: np.int8}
"""Labels are int32 in a program."""
COPIES, TABLES = 2, 64 * 2**20
"""What the temporary folder must have room for: copies of the asset, and bytes for tables of its operations."""
FAULTS = (RuntimeError, ValueError, KeyError, TypeError, OSError)


class Model:
    """An asset that is ready to execute; its temporary files go when it does."""

    def __init__(self, asset: Path) -> None:
        """Raises BackendError: it is damaged, or Core AI does not load it."""
        check_hash(asset)
        _make_sure_of_room(asset)
        self._loop, self._stack = asyncio.new_event_loop(), contextlib.AsyncExitStack()
        self._close = weakref.finalize(self, _close, self._loop, self._stack)
        self._functions: dict[str, Any] = {}
        try:
            with quiet(NOISE):
                self._model = self._loop.run_until_complete(_load(asset, self._stack))
        except FAULTS as error:
            self.close()
            raise BackendError(f"Core AI cannot load {asset}: {_text(error)}; {AGAIN}") from error

    def __call__(self, function: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs by name, float32 or integers. Raises BackendError: it does not execute."""
        arrays = {name: runtime().NDArray(_array(value)) for name, value in inputs.items()}
        try:
            with quiet(NOISE):
                if function not in self._functions:
                    self._functions[function] = self._model.load_function(function)
                out = self._loop.run_until_complete(_call(self._functions[function], arrays))
        except FAULTS as error:
            raise BackendError(f"Core AI cannot execute {function!r}: {_text(error)}; {AGAIN}") from error
        return {name: _tensor(value) for name, value in out.items()}

    def close(self) -> None:
        """Remove what was written for the execution."""
        self._close()


def _make_sure_of_room(asset: Path) -> None:
    """Raises BackendError: the temporary folder has none for what is written for the execution."""
    size, folder = TABLES + COPIES * sum(file.stat().st_size for file in asset.iterdir()), Path(tempfile.gettempdir())
    try:
        reserve(folder, size)
    except OSError as error:
        raise BackendError(
            f"{folder} has no room for the {size / 2**20:.0f} MB that Core AI writes there to execute {asset.name} "
            f"({error.strerror}); free some, or set TMPDIR to a folder with room"
        ) from error


async def _load(asset: Path, stack: contextlib.AsyncExitStack) -> Any:
    if sys.platform == "darwin":
        return await runtime().AIModel.load(asset)
    return await stack.enter_async_context(authoring().AIModelAsset.load(asset).executable())


async def _call(function: Any, arrays: Mapping[str, Any]) -> Any:
    return await function(arrays)


def _close(loop: asyncio.AbstractEventLoop, stack: contextlib.AsyncExitStack) -> None:
    if not loop.is_closed():
        loop.run_until_complete(stack.aclose())
        loop.close()


def _array(value: Tensor) -> Any:
    return np.ascontiguousarray(value.detach().cpu().numpy().astype(DTYPES[value.dtype]))


def _tensor(value: Any) -> Tensor:
    numbers = torch.from_numpy(np.array(value.numpy()))
    return numbers.to(torch.float32) if numbers.is_floating_point() else numbers


def _text(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
