"""What a report says of the machine that ran."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import psutil


def device_name() -> str:
    """Model of the CPU and number of cores, as far as the system tells."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{model}, {psutil.cpu_count() or 1} cores"


def peak_memory() -> int:
    """Largest resident size of this process so far, bytes; the Python runtime and torch are part of it.

    Not from getrusage where the system says it itself: on Linux that figure starts with the size of the parent process.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return int(psutil.Process().memory_info().rss)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
