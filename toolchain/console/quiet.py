"""What must be set before libraries are imported: their chatter stays off the user's screen, their threads spin briefly.

What libraries warn of while a model is loaded reaches the user.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dq_toolchain.toolchain.console.printable import printable

CHATTY = ("torchao", "torch.utils._pytree", "torch.distributed.elastic")
LIBRARIES = ("diffusers", "transformers", "peft")
SPINS = "1000"
"""Turns of a waiting thread before it sleeps, some microseconds; GCC's default is 300,000."""
NO_MATTER = ("requires torchvision",)
"""Parts of lines about what is imported beside the rest and never used here: no image is read."""


def spin_briefly() -> None:
    """Called by the command before torch is imported, whose OpenMP (GCC's, on Linux) reads it once.

    Threads that spin for long while they wait for each other hold the cores that another job's threads, or their own, need to go
    on: beside one busy process per core a fit takes 4 to 16 times as long. Threads that sleep at once are woken at every small
    operation: alone, a fit takes 2.3 times as long. A short spin costs a quarter alone, and little more than a fair share of
    the cores beside others (``benchmarks/under_load.py``). A user's own choice stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def quiet_imports() -> None:
    """Called by the command before diffusers is imported, which imports torchao where it is installed."""
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")  # on import it sets the level of its own logger
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(torch|torchao|diffusers)(\..*)?")


@contextmanager
def heard(warn: Callable[[str], None]) -> Iterator[None]:
    """Warnings of diffusers, transformers and peft go to ``warn``, one line each, none twice; whatever their levels."""
    said: set[str] = set()

    def say(text: object) -> None:
        line = printable(text)
        if line not in said:
            said.add(line)
            warn(line)

    with _loggers(_Hearing(say), logging.WARNING), warnings.catch_warnings():
        before = warnings.showwarning

        def show(message: Any, category: Any, filename: str, *others: Any, **named: Any) -> None:
            if any(f"/{library}/" in filename.replace("\\", "/") for library in LIBRARIES):
                say(message)
            else:
                before(message, category, filename, *others, **named)

        for library in LIBRARIES:
            for category in (UserWarning, FutureWarning, RuntimeWarning):
                warnings.filterwarnings("always", category=category, module=rf"{library}(\..*)?")
        warnings.showwarning = show
        yield


@contextmanager
def unheard() -> Iterator[None]:
    """Meanwhile those libraries warn of nothing, for a caller that checks itself what they would warn of."""
    with _loggers(logging.NullHandler(), logging.ERROR), warnings.catch_warnings():
        for library in LIBRARIES:
            warnings.filterwarnings("ignore", module=rf"{library}(\..*)?")
        yield


class _Hearing(logging.Handler):
    def __init__(self, say: Callable[[object], None]) -> None:
        super().__init__(logging.WARNING)
        self.say = say

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if not any(part in text for part in NO_MATTER):
            self.say(text)


@contextmanager
def _loggers(handler: logging.Handler, level: int) -> Iterator[None]:
    """The libraries' loggers with this handler in the place of their own."""
    loggers = [logging.getLogger(name) for name in LIBRARIES]
    before = [(logger, logger.level, logger.handlers[:], logger.propagate) for logger in loggers]
    try:
        for logger in loggers:
            logger.handlers[:], logger.propagate = [handler], False
            logger.setLevel(level)
        yield
    finally:
        for logger, old, handlers, propagate in before:
            logger.handlers[:], logger.propagate = handlers, propagate
            logger.setLevel(old)
