"""How much slower a fit becomes beside other work on the same cores, by how long its threads spin at barriers before they sleep.

    python -m benchmarks.under_load                     (minutes; --json FILE also writes the seconds)

The same short fit of the embedded model, with a thread per core, in processes that are alike but for what OpenMP is told: nothing,
to spin briefly, as the command tells it, and to sleep at once. They take turns, alone and beside one busy process per core, so that
all see the same load. Times are minima and maxima over the repeats; what else runs on the machine meanwhile is in all.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from dq_toolchain.toolchain.console.quiet import SPINS, quiet_imports

POLICIES: dict[str, dict[str, str]] = {
    "as OpenMP comes": {},
    "brief spin": {"GOMP_SPINCOUNT": SPINS},
    "asleep": {"OMP_WAIT_POLICY": "passive"},
}
SETTINGS = {
    "sampler": {"steps": 4},
    "quantize": {"step_groups": 2},
    "calibrate": {"samples": 4, "batch": 2, "warmup": 2, "iterations": 0, "settling": 0, "group_iterations": 0},
}
BUSY = "while True: pass"


def work() -> None:
    """A fit for every line on stdin; its seconds on stdout. Runs in a process of its own, for OpenMP reads its policy once."""
    quiet_imports()
    from benchmarks.common import fit, prepare, recipe_of

    recipe = recipe_of(SETTINGS)
    prepared = prepare(recipe)
    print("ready", flush=True)
    for _ in sys.stdin:
        begin = time.perf_counter()
        fit(prepared, recipe)
        print(time.perf_counter() - begin, flush=True)


@contextlib.contextmanager
def worker(policy: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    environment |= {"OMP_NUM_THREADS": str(os.cpu_count()), **policy}
    command = [sys.executable, "-m", "benchmarks.under_load", "--work"]
    with subprocess.Popen(
        command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            read(process.stdout)
            yield process
        finally:
            process.kill()


def read(stream: IO[str] | None) -> str:
    """A line of a worker. Raises RuntimeError: it died."""
    line = "" if stream is None else stream.readline()
    if not line:
        raise RuntimeError("a worker died; what it said stands above")
    return line


def seconds(process: subprocess.Popen[str]) -> float:
    assert process.stdin is not None
    print(file=process.stdin, flush=True)
    return float(read(process.stdout))


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.callback(stack.enter_context(subprocess.Popen([sys.executable, "-c", BUSY])).kill)
        yield


def measure(repeats: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of every fit: condition -> policy -> repeats."""
    cores, found = os.cpu_count() or 1, dict[str, dict[str, list[float]]]()
    with contextlib.ExitStack() as stack:
        workers = {name: stack.enter_context(worker(policy)) for name, policy in POLICIES.items()}
        for process in workers.values():
            seconds(process)  # the first is slower
        for condition, others in (("alone", 0), (f"beside {cores} busy processes", cores)):
            found[condition] = {name: [] for name in workers}
            with busy(others):
                for _ in range(repeats):
                    for name, process in workers.items():
                        found[condition][name].append(seconds(process))
                        print(f"{condition}, {name}: {found[condition][name][-1]:.2f} s", file=sys.stderr)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write all seconds here")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work()
        return
    load = os.getloadavg()[0]
    found = measure(given.repeats)
    print(f"| {os.cpu_count()} cores, load {load:.1f} before | {' | '.join(POLICIES)} |")
    for condition, times in found.items():
        print(
            f"| {condition} | {' | '.join(f'{min(times[name]):.2f}-{max(times[name]):.2f} s' for name in POLICIES)} |"
        )
    alone, beside = found.values()
    print(f"| ratio of minima | {' | '.join(f'{min(beside[name]) / min(alone[name]):.1f}' for name in POLICIES)} |")
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
