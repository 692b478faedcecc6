"""A whole small Stable Diffusion on ExecuTorch, part by part: BK-SDM-Tiny's topology, W8A8 against float by the stock recipe.

    python -m benchmarks.bk_sdm WORK [--threads 1,2] [--calls 3] [--json bk.json]

WORK is what ``benchmarks.bk_sdm_bundle`` made: the bundle and the float programs. Every program runs in a Python process of its
own; both kinds take turns. Memory is the most that the process held above what it held with the runtime loaded and no program.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.bk_sdm_bundle import KINDS, PLACES, STEPS
from benchmarks.bk_sdm_programs import PARTS, TOKENS
from dq_toolchain.toolchain.formats.bundle import Bundle

Row = dict[str, Any]
RUN = """
import json, sys, time, torch
from pathlib import Path
from dq_toolchain.backends.executorch.runtime.device import Device
from dq_toolchain.backends.executorch.vendor import runtime, set_threads
def memory(name):
    return int(next(l for l in open("/proc/self/status") if l.startswith(name)).split()[1]) * 1024
runtime()
program, inputs, threads, calls = sys.argv[1:]
given = torch.load(inputs, weights_only=True)
set_threads(int(threads))
before = memory("VmRSS")
device = Device(Path(program), ("forward",))
device.outputs("forward", given)
times = []
for _ in range(int(calls)):
    begin = time.perf_counter(); device.outputs("forward", given); times.append(time.perf_counter() - begin)
print(json.dumps({"seconds": times, "bytes": memory("VmHWM") - before}))
"""


def write_inputs(bundle: Path, folder: Path) -> None:
    """PART.inputs: what the part's program takes, random but for the timestep and the ranges."""
    description, ranges = Bundle.load(bundle), Bundle.load(bundle).ranges(bundle)
    known = {"timestep": torch.tensor([500.0])} | ({} if ranges is None else {"ranges": ranges[:1]})
    torch.manual_seed(0)
    (sample,) = (port.shape for port in description.outputs)
    inputs = {
        "text encoder": [torch.randint(0, 49408, (1, TOKENS))],
        "network": [known[port.name] if port.name in known else torch.randn(port.shape) for port in description.inputs],
        "decoder": [torch.randn(sample)],
    }
    for part, tensors in inputs.items():
        torch.save(tensors, folder / f"{part}.inputs")


def measure(work: Path, threads: Sequence[int], calls: int) -> list[Row]:
    """A row for each part, number of threads and kind."""
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for kind in KINDS:
            (Path(temporary) / kind).mkdir()
            write_inputs(work / kind, Path(temporary) / kind)
        for part in PARTS:
            for count in threads:
                for kind in KINDS:
                    program, inputs = work / kind / PLACES[part], Path(temporary) / kind / f"{part}.inputs"
                    command = [sys.executable, "-c", RUN, str(program), str(inputs), str(count), str(calls)]
                    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                    found = json.loads(done.stdout.splitlines()[-1])
                    rows.append(
                        {"part": part, "kind": kind, "threads": count, "size": program.stat().st_size, "memory": found["bytes"],
                         "seconds": statistics.median(found["seconds"])}
                    )  # fmt: skip
    return rows


def whole(rows: Sequence[Row], kind: str, threads: int) -> Row:
    """A picture: text twice (guidance), the network twice a step, the decoder once; parts loaded one after the other."""
    of = {row["part"]: row for row in rows if (row["kind"], row["threads"]) == (kind, threads)}
    calls = {"text encoder": 2, "network": 2 * STEPS, "decoder": 1}
    return {
        "part": f"whole, {STEPS} steps", "kind": kind, "threads": threads, "size": sum(row["size"] for row in of.values()),
        "memory": max(row["memory"] for row in of.values()),
        "seconds": sum(of[part]["seconds"] * count for part, count in calls.items()),
    }  # fmt: skip


def show(rows: Sequence[Row]) -> None:
    table = Table("part", "threads", "MB", "MB float", "ratio", "s", "s float", "ratio", "MB held", "MB float", "ratio")
    pairs: dict[tuple[str, int], dict[str, Row]] = {}
    for row in rows:
        pairs.setdefault((row["part"], row["threads"]), {})[row["kind"]] = row
    for (part, count), both in pairs.items():
        ours, theirs = both["w8a8"], both["float"]
        cells = []
        for key, unit, form in (("size", 1e6, ".1f"), ("seconds", 1.0, ".3f"), ("memory", 1e6, ".0f")):
            a, b = ours[key] / unit, theirs[key] / unit
            cells += [format(a, form), format(b, form), f"{a / b:.2f}"]
        table.add_row(part, str(count), *cells)
    Console(width=140).print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--calls", type=int, default=3, help="timed calls of each program")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    counts = [int(word) for word in given.threads.split(",")]
    found = measure(given.work, counts, given.calls)
    found += [whole(found, kind, count) for count in counts for kind in KINDS]
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    show(found)
