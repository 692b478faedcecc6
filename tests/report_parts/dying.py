"""A part that the system kills."""

from __future__ import annotations

import os
import signal

from benchmarks.gpu.record import Plan, Record


def run(record: Record, plan: Plan) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
