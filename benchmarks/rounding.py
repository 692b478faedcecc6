"""How weights are rounded: learned, in closed form, or both; each with the method's control at equal passes.

    python -m benchmarks.rounding --bits W4A8 --effort quick --guidance 1
    python -m benchmarks.rounding --bits W8A8 --guidance 3 --held-out 64 --rounding nearest,closed-form
    python -m benchmarks.rounding --model models/cifar10 --recipe benchmarks/cifar10_short.toml --methods accuquant,single-step

Integer simulation on held-out seeds. Seconds are processor time of a whole calibration without its held-out rollouts. With --work a
killed run goes on, and FP32 rollouts are made once. What is learned needs iterations: above 6 bits those of a --recipe.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.common import Judge, merged, recorded, study_parser, study_recipe
from dq_toolchain.calibrate.pipeline import calibrated
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.recipe.loading import load_recipe

ROUNDINGS = "learned,closed-form,closed-form+learned"
COLUMNS = ("psnr", "psnr_p10", "psnr_pooled", "psnr_lowest", "agreement", "frechet", "seconds")
Row = dict[str, Any]


def measure(args: argparse.Namespace, work: Path, reporter: Reporter) -> Iterator[Row]:
    """One row for each calibration seed, method and rounding; all on the same held-out seeds."""
    judge: Judge | None = None
    for seed in range(args.seeds):
        for method in args.methods.split(","):
            for rounding in args.rounding.split(","):
                about = {"seed": seed, "method": method, "rounding": rounding}
                reporter.say(", ".join(f"{name} {value}" for name, value in about.items()))
                asked = {"method": method, "rounding": rounding, **({"effort": args.effort} if args.effort else {})}
                flags = merged(
                    study_recipe(args, asked), {"sampler": {"guidance": args.guidance}, "run": {"seed": seed}}
                )
                begin = time.process_time()
                done = calibrated(load_recipe(args.recipe, flags), reporter, work)
                seconds = time.process_time() - begin
                judge = judge or Judge(done.context, args.held_out)
                stages = done.artifact.record["stages"]
                yield {**about, **judge.figures(done.artifact), "seconds": seconds, "stages": stages}


def show(rows: list[Row]) -> None:
    table = Table(
        "seed",
        "method",
        "rounding",
        "PSNR (dB)",
        "10th percentile",
        "pooled",
        "lowest",
        "classes alike",
        "Fréchet",
        "s",
    )
    for row in rows:
        numbers = (f"{row[name]:.4g}" for name in COLUMNS)
        table.add_row(str(row["seed"]), row["method"], row["rounding"], *numbers)
    Console(width=140).print(table)


def parser() -> argparse.ArgumentParser:
    found = study_parser(__doc__)
    found.add_argument("--rounding", default=ROUNDINGS, help=f"[default: {ROUNDINGS}]")
    found.add_argument("--methods", default="accuquant", help="[default: accuquant]")
    found.add_argument("--guidance", type=float, default=1.0)
    found.add_argument("--effort", help="quick | standard | best  [default: standard]")
    found.add_argument("--recipe", type=Path, help="TOML file, for iterations and everything else")
    found.add_argument("--work", type=Path, help="keep checkpoints here")
    return found


def main(args: argparse.Namespace) -> list[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        rows = list(recorded(measure(args, args.work or Path(scratch), Reporter()), args.json))
    show(rows)
    return rows


if __name__ == "__main__":
    main(parser().parse_args())
