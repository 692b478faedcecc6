"""All that the project wants to know of a GPU, in nine minutes at most: one command, a folder with the answers.

    python -m benchmarks.gpu_report --minutes 9 --out FOLDER
    python -m benchmarks.gpu_report --parts environment,iterations --minutes 4 --out FOLDER
    python -m benchmarks.gpu_report --dry-run --out FOLDER      # tiny sizes on the CPU: whether it all works

Parts run one after the other in order of importance, each in a process of its own with a time limit. What a part finds is
written at once (FOLDER/NN_part.json, its output in NN_part.log); FOLDER/report.md and report.json are written after every
part, and when this process is told to end (SIGTERM).
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.gpu.page import read, record_of, write_report
from benchmarks.gpu.parts import Part, chosen, limits
from benchmarks.gpu.process import run_part, starter
from benchmarks.gpu.record import Plan
from dq_toolchain.toolchain.console.quiet import quiet_imports

TO_WRITE = 2.0
"""Seconds kept for the report."""
PRELOADED = (
    "torch",
    "diffusers",
    "benchmarks.common",
    "dq_toolchain.calibrate.run",
    "dq_toolchain.calibrate.compare.command",
)
TINY_MINUTES = 6.0


class Told(BaseException):
    """This process was told to end."""


def _tell(number: int, _frame: object) -> NoReturn:
    raise Told(number)


def unusable(file: Path) -> bool:
    """Whether a part found that torch sees no GPU."""
    return read(file).get("values", {}).get("usable") is False


def report(out: Path, parts: tuple[Part, ...], minutes: float, tiny: bool) -> bool:
    """Run the parts and write the report; False if this process was told to end meanwhile.

    Raises:
        ToolchainError: the folder cannot be written.
    """
    begin = time.monotonic()
    deadline = begin + 60 * minutes - TO_WRITE
    states: dict[str, dict[str, Any]] = {}
    about: dict[str, Any] = {"started": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "minutes": minutes, "tiny": tiny,
                             "card": "no card known", "seconds": 0.0}  # fmt: skip

    def write() -> None:
        about["seconds"] = time.monotonic() - begin
        about["card"] = read(record_of(out, 0, parts[0])).get("values", {}).get("card", about["card"])
        write_report(out, parts, states, about)

    for number, part in enumerate(parts):
        record_of(out, number, part).unlink(missing_ok=True)
    fork, whole = True, True
    try:
        for number, part in enumerate(parts):
            file, left = record_of(out, number, part), deadline - time.monotonic()
            limit = limits([each.share for each in parts[number:]], left)
            states[part.name] = {"state": "interrupted", "limit": limit}
            print(f"{part.name}: {part.title}, {limit:.0f} s at most", flush=True)
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
                plan = Plan(out=out, scratch=Path(scratch), device="cpu" if tiny else "cuda", tiny=tiny, seconds=limit)
                ended = run_part(part, plan, file, starter(fork))
                if fork and unusable(file):  # something that was imported asked CUDA: then it does not outlive the fork
                    fork = False
                    ended = run_part(part, plan, file, starter(fork))
            states[part.name] |= vars(ended)
            print(f"{part.name}: {ended.state}{f', {ended.reason}' if ended.reason else ''}", flush=True)
            write()
            if unusable(file):
                print("torch sees no GPU, and all that follows needs one; --dry-run does without", flush=True)
                break
    except Told:
        whole = False
    finally:
        write()
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the report")
    parser.add_argument("--minutes", type=float, help="the whole takes no longer (default: 9)")
    parser.add_argument("--parts", help="names joined by commas; default: all")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes, on the CPU")
    arguments = parser.parse_args()
    try:
        parts = chosen(arguments.parts)
    except ValueError as error:
        parser.error(str(error))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _tell)
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # whether there is a GPU, without touching it
    quiet_imports()
    for name in PRELOADED:
        importlib.import_module(name)
    arguments.out.mkdir(parents=True, exist_ok=True)
    minutes = arguments.minutes or (TINY_MINUTES if arguments.dry_run else 9.0)
    whole = report(arguments.out.resolve(), parts, minutes, arguments.dry_run)
    print(arguments.out / "report.md")
    sys.exit(0 if whole else 128 + signal.SIGTERM)


if __name__ == "__main__":
    main()
