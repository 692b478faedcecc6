"""Reports for tests: edited on disk, and what the terminal says of their verdict."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from dq_toolchain.toolchain.render.show import show_verdict
from dq_toolchain.toolchain.verdict.result import Verdict


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def said_by(verdict: Verdict) -> str:
    stream = io.StringIO()
    show_verdict(Console(width=200, file=stream), verdict)
    return stream.getvalue()
