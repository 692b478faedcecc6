"""How many threads a runtime may be given."""

from __future__ import annotations

from dq_toolchain.toolchain.errors import BackendError

MOST_THREADS = 256


def check_threads(threads: int | None) -> None:
    """Raise BackendError for a number of threads that no runtime is given."""
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise BackendError(f"threads must be 1-{MOST_THREADS}, got {threads}; change --threads")
