"""A picture by the C++ program, W8A8 against float: seconds, seconds of a step, peak memory, bytes of the folders.

    python -m benchmarks.bk_sdm_cpp WORK [--steps 20] [--threads 1,2] [--modes plain,low-memory] [--repeat 1] [--json cpp.json]

WORK is what ``benchmarks.bk_sdm_bundle`` made: ``w8a8`` and ``float``, with which the same dq-generate draws, in a process each
and in turns. Its own line is read: seconds from the loading of the programs to the PNG, seconds in the network, and the most memory
that the process ever held (VmHWM; nothing is subtracted). ``low-memory`` loads one program at a time; there the seconds in the
network hold its loading. ``--steps`` is of the sampler.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.bk_sdm_bundle import KINDS, STEPS, of_steps
from dq_toolchain.toolchain.formats.bundle import JSON, Bundle

MODES = {"plain": (), "low-memory": ("--low-memory",)}
SAMPLE = Path(__file__).parents[1] / "runtime_samples" / "executorch"
LINE = re.compile(
    r"; (?P<seconds>[\d.]+) s, of them (?P<network>[\d.]+) s in the network; peak memory (?P<mib>\d+) MiB"
)
PROMPT = "a red house"
Row = dict[str, Any]


def build(folder: Path) -> Path:
    """dq-generate, against the installed wheel; what is built already stays."""
    make = ["cmake", "-S", str(SAMPLE), "-B", str(folder), "-DDQ_EXECUTORCH=wheel", f"-DDQ_PYTHON={sys.executable}"]
    for command in (make, ["cmake", "--build", str(folder), "--target", "dq-generate"]):
        subprocess.run(command, check=True, stdout=sys.stderr)
    return folder / "dq-generate"


def of_other_steps(source: Path, folder: Path, steps: int) -> Path:
    """The same files, linked, under a description with the table of other steps."""
    shutil.copytree(source, folder, copy_function=os.link, ignore=shutil.ignore_patterns(JSON))
    of_steps(Bundle.load(source), steps).save(folder)
    return folder


def read_line(line: str) -> dict[str, float]:
    """Seconds, seconds in the network and bytes of what dq-generate says at its end. Raises ValueError: another line."""
    found = LINE.search(line)
    if found is None:
        raise ValueError(f"dq-generate said {line!r}")
    return {"seconds": float(found["seconds"]), "network": float(found["network"]), "memory": int(found["mib"]) * 2**20}


def size_of(folder: Path) -> int:
    """Bytes of all files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def measure(
    program: Path, folders: dict[str, Path], modes: Sequence[str], threads: Sequence[int], repeat: int, steps: int
) -> Iterator[Row]:
    """A row of every mode, number of threads and kind: medians over the runs."""
    with tempfile.TemporaryDirectory() as temporary:
        for mode in modes:
            for count in threads:
                runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
                for _ in range(repeat):
                    for kind in KINDS:
                        command = [str(program), "--bundle", str(folders[kind]), "--out", f"{temporary}/picture.png"]
                        command += ["--prompt", PROMPT, "--threads", str(count), *MODES[mode]]
                        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                        runs[kind].append(read_line(done.stdout))
                for kind, each in runs.items():
                    middle = {key: statistics.median(run[key] for run in each) for key in each[0]}
                    yield {
                        "mode": mode, "threads": count, "kind": kind, "size": size_of(folders[kind]), **middle,
                        "step": middle["network"] / steps,
                    }  # fmt: skip


def show(rows: Sequence[Row]) -> None:
    columns = (
        ("size", 1e6, "MB", ".1f"),
        ("seconds", 1.0, "s", ".1f"),
        ("step", 1.0, "s a step", ".2f"),
        ("memory", 2.0**20, "MiB", ".0f"),
    )
    table = Table(
        "mode", "threads", *(name for _, _, unit, _ in columns for name in (f"{unit}, W8A8", "float", "ratio"))
    )
    for ours, theirs in zip(rows[::2], rows[1::2], strict=True):
        cells = []
        for key, unit, _, form in columns:
            a, b = ours[key] / unit, theirs[key] / unit
            cells += [format(a, form), format(b, form), f"{a / b:.2f}"]
        table.add_row(ours["mode"], str(ours["threads"]), *cells)
    Console(width=150).print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps", type=int, default=STEPS, help="of the sampler, 2 or more")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--build", type=Path, help="build folder of dq-generate, made or found; default: in WORK")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    built = build(given.build or given.work / "build")
    with tempfile.TemporaryDirectory(dir=given.work) as links:  # hard links stay on one disk
        places = {kind: of_other_steps(given.work / kind, Path(links) / kind, given.steps) for kind in KINDS}
        counts = [int(word) for word in given.threads.split(",")]
        found = []
        for row in measure(built, places, given.modes.split(","), counts, given.repeat, given.steps):
            found.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    show(found)
