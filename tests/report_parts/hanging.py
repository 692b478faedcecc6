"""A part that finds something, starts a process and never ends."""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.gpu.record import Plan, Record


def run(record: Record, plan: Plan) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    (plan.out / "child.pid").write_text(str(child.pid))
    record.row("Found", what="a row", seconds=1.5)
    record.value("found", 3)
    time.sleep(600)
