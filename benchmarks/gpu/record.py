"""What one part of the report has found so far, on disk at any time: a part may end at any moment."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dq_toolchain.toolchain.disk.files import plain, write_json


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What every part is told.

    Attributes:
        out: the report's folder. scratch: for large files that nobody reads later; removed when the part has ended.
        device: "cuda" or "cpu". tiny: a dry run, everything as small as it can be.
        seconds: after which the part is killed.
    """

    out: Path
    scratch: Path
    device: str
    tiny: bool
    seconds: float


@dataclass(kw_only=True)
class Record:
    """Rows, by table, and figures by name. Every change is written at once, the whole file or nothing."""

    path: Path
    values: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    begin: float = field(default_factory=time.monotonic)

    def row(self, table: str, **columns: Any) -> None:
        self.tables.setdefault(table, []).append(columns)
        self.write()

    def last_row(self, table: str, **columns: Any) -> None:
        """The same in the place of the last row, if there is one."""
        del self.tables.setdefault(table, [])[-1:]
        self.row(table, **columns)

    def value(self, name: str, value: Any) -> None:
        self.values[name] = value
        self.write()

    def write(self) -> None:
        content, _ = plain({"values": self.values, "tables": self.tables, "seconds": time.monotonic() - self.begin})
        write_json(self.path, content)
