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
from dataclasses import dataclass


@dataclass(frozen=True)
class Noise:
    """What libraries are known to print that is of no use to a user. Each target's ``vendor.py`` declares its own.

    Attributes:
        loggers: names of loggers whose warnings are dropped.
        native: parts of lines that native code writes to file descriptor 2.
        modules: packages whose UserWarnings are dropped.
    """

    loggers: tuple[str, ...] = ()
    native: tuple[bytes, ...] = ()
    modules: tuple[str, ...] = ()


OF_TORCH = Noise(
    loggers=("torchao", "torch.utils._pytree", "torch.export"),
    native=(b"torchao/_C",),
    modules=("torch", "torchao", "copyreg"),
)
"""Of what every target stands on; diffusers imports torchao where it is installed."""


@contextlib.contextmanager
def _stderr_without(native: tuple[bytes, ...], errors: bool) -> Iterator[None]:
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
                if errors and not any(fragment in line for fragment in native):
                    os.write(2, line)


@contextlib.contextmanager
def _at_error(names: tuple[str, ...]) -> Iterator[None]:
    """The root logger and those of these names say errors only."""
    loggers = [logging.getLogger(name) for name in (None, *names)]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(max(logger.level, logging.ERROR))
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def quiet(noise: Noise, errors: bool = True) -> Iterator[None]:
    """Drop the warnings, log lines and progress bars that torch and a vendor are known for.

    Args:
        noise: of the vendor.
        errors: what native code writes of errors comes through; False where the caller raises, and says it in one line.
    """
    # pybind sends what C++ prints to sys.stderr
    hidden: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
    if not errors:
        hidden = contextlib.redirect_stderr(io.StringIO())
    native = OF_TORCH.native + noise.native
    with (
        hidden,
        warnings.catch_warnings(),
        _at_error(OF_TORCH.loggers + noise.loggers),
        _stderr_without(native, errors),
    ):
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        packages = "|".join(OF_TORCH.modules + noise.modules)
        warnings.filterwarnings("ignore", category=UserWarning, module=rf"({packages})(\..*)?")
        yield
