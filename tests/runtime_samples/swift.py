"""The Swift packages on Linux: built once for all tests of a session, commands run inside of the folder with the compiler.

Slow, and skipped where no Swift was set up: `sudo scripts/swift_linux.sh --setup`.
"""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "swift_linux.sh"

SLOW_AND_ONLY_WITH_SWIFT = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / ".swift" / ".swift-ready").exists(),
                       reason="no Swift in .swift: run scripts/swift_linux.sh --setup as root"),
    pytest.mark.skipif(os.geteuid() != 0, reason="scripts/swift_linux.sh needs root for chroot"),
]  # fmt: skip


@functools.cache
def packages_tested() -> str:
    """Builds all packages and runs their own tests. Returns what was printed; fails if anything in it failed."""
    done = subprocess.run([str(SCRIPT)], capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


def inside(arguments: Sequence[str | Path], visible: Path, *, timeout: int = 600) -> subprocess.CompletedProcess[str]:
    """Runs a program of a package (``PACKAGE/.build/...``), which sees the folder ``visible`` under its own path."""
    environment = {**os.environ, "SWIFT_BIND": str(visible)}
    command = [str(SCRIPT), "--", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
