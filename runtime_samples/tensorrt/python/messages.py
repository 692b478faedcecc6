"""What TensorRT says, kept for the one line that reports an error instead of being printed between."""

from __future__ import annotations

from typing import Any

from errors import one_line


def keep_messages(library: Any) -> Any:
    """A logger for ``library``, the tensorrt module, whose ``last()`` is the newest error as "; TensorRT says: ..." or ""."""

    class Messages(library.ILogger):  # type: ignore[misc]  # its type comes with the device
        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, text: str) -> None:
            if severity in (library.ILogger.Severity.ERROR, library.ILogger.Severity.INTERNAL_ERROR):
                self.errors[:] = [one_line(text, 300)]

        def last(self) -> str:
            return f"; TensorRT says: {self.errors[0]}" if self.errors else ""

    return Messages()
