"""What an effort costs and gives: processor time, PSNR on held-out seeds, and the difference to `standard`, paired by seed.

    python -m benchmarks.effort --bits W8A8,W4A8 --efforts quick,standard [--model FOLDER] [--seeds 3] [--work FOLDER]

Nothing is set but bits, effort and the calibration seed. With --work a killed run goes on, and rows that are done stay.
Processor time is that of all threads, of every run that a calibration took; start-up and judging are left out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.common import Judge, recipe_of
from dq_toolchain.calibrate.compare.grid import parse_bits
from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.pipeline import calibrated
from dq_toolchain.toolchain.console.progress import Advance, Reporter
from dq_toolchain.toolchain.metrics import psnr
from dq_toolchain.toolchain.recipe.sections import Effort

SETS = 2000
EVERY = 5.0
Row = dict[str, Any]


class Counting(Reporter):
    """Says nothing, and keeps the processor time of a calibration in a file, over all runs that it takes."""

    def __init__(self, path: Path) -> None:
        super().__init__(quiet=True)
        self.path, self.before = path, json.loads(path.read_text()) if path.is_file() else 0.0
        self.begin, self.saved = time.process_time(), time.monotonic()

    @property
    def seconds(self) -> float:
        return self.before + time.process_time() - self.begin

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Advance]:
        def advance(n: int = 1, note: str = "", **_: int) -> None:
            if time.monotonic() - self.saved >= EVERY:
                self.path.write_text(json.dumps(self.seconds))
                self.saved = time.monotonic()

        yield advance


def measure(
    model: Path | None, bits: tuple[int, int], effort: str, seed: int, work: Path, judge_of: Callable[[Context], Judge]
) -> Row:
    """One calibration and its figures; ``values``: PSNR of every held-out seed."""
    recipe = recipe_of(
        {
            "model": {"path": model},
            "quantize": {"weight_bits": bits[0], "activation_bits": bits[1]},
            "calibrate": {"effort": effort},
            "run": {"seed": seed},
        }
    )
    folder = work / f"w{bits[0]}a{bits[1]}-{effort}-s{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    reporter = Counting(folder / "seconds.json")
    made = calibrated(recipe, reporter, folder)
    seconds = reporter.seconds
    judge = judge_of(made.context)
    values = psnr(judge.simulated(made.artifact), judge.fp32).tolist()
    return {
        "bits": f"W{bits[0]}A{bits[1]}",
        "effort": effort,
        "seed": seed,
        "seconds": seconds,
        "stages": made.artifact.record["stages"],
        "values": values,
        **judge.figures(made.artifact),
    }


def paired(one: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    """Mean of one - other, paired, and the interval in which 95 % of resampled sets of seeds leave it."""
    difference = torch.tensor(one, dtype=torch.float64) - torch.tensor(other, dtype=torch.float64)
    index = torch.randint(len(difference), (SETS, len(difference)), generator=torch.Generator().manual_seed(0))
    low, high = difference[index].mean(1).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return float(difference.mean()), low, high


def show(rows: Sequence[Row]) -> None:
    """One line a calibration, and for each but `standard` the difference to it at the same bits and seed."""
    table = Table(
        "bits",
        "effort",
        "calibration seed",
        "processor s",
        "PSNR, median / 10th percentile / lowest (dB)",
        "classes",
        "to standard (dB)",
    )
    standard = {(r["bits"], r["seed"]): r for r in rows if r["effort"] == "standard"}
    for r in rows:
        base = standard.get((r["bits"], r["seed"]))
        against = ""
        if base is not None and base is not r:
            mean, low, high = paired(r["values"], base["values"])
            against = f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"
        table.add_row(
            r["bits"], r["effort"], str(r["seed"]), f"{r['seconds']:.0f}",
            f"{r['psnr']:.1f} / {r['psnr_p10']:.1f} / {min(r['values']):.1f}", f"{100 * r['agreement']:.1f} %",
            against,
        )  # fmt: skip
    Console(width=140).print(table)


def main(args: argparse.Namespace, work: Path) -> None:
    file = work / "rows.json"
    rows: list[Row] = json.loads(file.read_text()) if file.is_file() else []
    judges: list[Judge] = []

    def judge_of(context: Context) -> Judge:
        """FP32 and the held-out seeds are the same for all calibrations."""
        if not judges:
            judges.append(Judge(context, args.held_out))
        return judges[0]

    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for bits in parse_bits(args.bits):
            for effort in args.efforts.split(","):
                key = (f"W{bits[0]}A{bits[1]}", effort, seed, args.held_out)
                if key in {(r["bits"], r["effort"], r["seed"], len(r["values"])) for r in rows}:
                    continue
                rows.append(measure(args.model, bits, effort, seed, work, judge_of))
                file.write_text(json.dumps(rows, indent=1) + "\n")
    show(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="diffusers folder; default: the embedded model")
    parser.add_argument("--bits", default="W8A8,W4A8")
    parser.add_argument("--efforts", default="quick,standard", help=f"of {', '.join(get_args(Effort))}")
    parser.add_argument("--seeds", type=int, default=1, help="calibration seeds")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--held-out", type=int, default=128, help="held-out seeds")
    parser.add_argument("--work", type=Path, help="keep checkpoints and rows here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        main(arguments, arguments.work or Path(scratch))
