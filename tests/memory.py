"""Memory that a part of a test takes."""

from __future__ import annotations

import ctypes
import gc
import threading
import time
from types import TracebackType

import psutil


def resident() -> int:
    """Bytes that this process holds. What tests before this one freed is given back first: it would be taken again unseen."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


class Peak:
    """How much more memory the process holds within than before, at its most; in bytes."""

    def __enter__(self) -> Peak:
        self._process, self._on = psutil.Process(), True
        self._before = self._most = resident()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while self._on:
            self._most = max(self._most, self._process.memory_info().rss)
            time.sleep(0.002)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._on = False
        self._thread.join()

    @property
    def bytes(self) -> int:
        return int(self._most - self._before)
