"""What a report says of the machine is about this process."""

from __future__ import annotations

import subprocess
import sys

from dq_toolchain.backends.common.machine import peak_memory

CHILD = "from dq_toolchain.backends.common.machine import peak_memory; print(peak_memory())"


def test_peak_memory_is_that_of_this_process() -> None:
    """A program that a large process starts does not report the size of that one."""
    before = peak_memory()
    block = b"x" * (before + 2**28)  # touched: it is resident
    here = peak_memory()
    assert here >= len(block)
    child = int(subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True).stdout)
    assert 0 < child < len(block)
