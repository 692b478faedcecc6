"""Silence around the vendors' imports and passes: known noise is dropped by origin, everything else stays visible."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator

_LOGGERS = (
    "torchao",
    "torch.utils._pytree",
    "torch.export",
    "torch.onnx",
    "onnxscript",
    "executorch",
    "coremltools",
    None,
)
_NATIVE = (
    b"cpuinfo_utils.cpp", b"torchao/_C", b"] Resetting threadpool to ",
    b"Converting PyTorch Frontend ==> MIL Ops", b"Running MIL ",  # progress bars of coremltools
)  # fmt: skip


@contextlib.contextmanager
def _stderr_without_noise(errors: bool) -> Iterator[None]:
    """Native code writes to file descriptor 2 itself: what it writes is held back; lines that are no noise pass, if ``errors``."""
    try:
        sys.stderr.flush()
        saved = os.dup(2)
    except (OSError, ValueError, AttributeError):
        yield
        return
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            caught.seek(0)
            for line in caught:
                if errors and not any(fragment in line for fragment in _NATIVE):
                    os.write(2, line)


@contextlib.contextmanager
def _loggers_at_error() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(max(logger.level, logging.ERROR))
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def quiet(errors: bool = True) -> Iterator[None]:
    """Drop the warnings, log lines and progress bars that the vendors are known for.

    Args:
        errors: what native code writes of errors comes through; False where the caller raises, and says it in one line.
    """
    # pybind sends what C++ prints to sys.stderr
    hidden: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
    if not errors:
        hidden = contextlib.redirect_stderr(io.StringIO())
    with hidden, warnings.catch_warnings(), _loggers_at_error(), _stderr_without_noise(errors):
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings(
            "ignore", category=UserWarning, module=r"(torch|torchao|executorch|coremltools|copyreg)(\..*)?"
        )
        yield
