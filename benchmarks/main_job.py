"""Wall time of every command of the main job on the embedded model, defaults, in a fresh output folder.

python -m benchmarks.main_job [--json main_job.json] [calibrate flags...]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMANDS = ("calibrate", "export", "run", "validate")


def main_job(out: Path, flags: list[str]) -> dict[str, float]:
    """Seconds by command; raises CalledProcessError if one fails."""
    seconds = {}
    for name in COMMANDS:
        extra = {"calibrate": flags, "validate": ["--html", str(out / "report.html")]}.get(name, [])
        command = [
            sys.executable,
            "-c",
            "from dq_toolchain.toolchain.cli.entry import main; main()",
            name,
            "--out",
            str(out),
            *extra,
        ]
        begin = time.perf_counter()
        subprocess.run(command, check=True)
        seconds[name] = time.perf_counter() - begin
    return seconds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments, calibrate_flags = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = main_job(Path(folder), calibrate_flags)
    for name, value in measured.items():
        print(f"{name:10} {value:7.1f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(measured, indent=1) + "\n")
