"""What is lost when a device runs another step count, or guidance, than was calibrated: against a calibration at that count.

    python -m benchmarks.step_counts [--steps 20] [--at 8,50] [--guidance 3] [--scales 1,7.5] [--seeds 3] [--work FOLDER]

Every pair is judged on the same held-out seeds, by FP32's own samples at that count and scale. Integer simulation, embedded
model. With --work a killed run goes on, and rows that are done stay.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.common import recipe_of
from benchmarks.effort import paired
from dq_toolchain.calibrate.compare.grid import parse_bits
from dq_toolchain.calibrate.data.rollouts import rollouts_of
from dq_toolchain.calibrate.data.samples import held_out_seeds
from dq_toolchain.calibrate.pipeline import Calibrated, calibrated
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.metrics import psnr
from dq_toolchain.toolchain.recipe.sections import Recipe
from dq_toolchain.toolchain.sampler.table import SamplerTable
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork

Row = dict[str, Any]


def runs(made: Calibrated, held_out: int) -> Iterator[Row]:
    """PSNR of every held-out seed: at the calibrated sampler, and at every other one that the calibration has."""
    context, artifact = made.context, made.artifact
    own: list[tuple[int | None, Artifact, SamplerTable]] = [(context.steps, artifact, context.table)]
    for steps, one, table in (*own, *((s.steps, artifact.at(s), s.table) for s in context.samplings)):
        samples, network = context.draw(held_out_seeds(held_out), table), SimulatedNetwork(one)
        run = partial(rollouts_of, guidance=one.guidance, batch=16, device=context.device)
        fp32 = run(context.network, table, samples).latents[-1]
        integers = run(network, one.table, samples, set_step=network.set_step).latents[-1]
        yield {"steps": steps, "guidance": one.guidance, "values": psnr(integers, fp32).tolist()}


def recipe_at(args: argparse.Namespace, steps: int, guidance: float, seed: int, more: bool) -> Recipe:
    ((weight_bits, activation_bits),) = parse_bits(args.bits)
    others = {"more_steps": args.at, "more_guidance": args.scales} if more else {}
    return recipe_of(
        {
            "sampler": {"steps": steps, "guidance": guidance},
            "quantize": {"weight_bits": weight_bits, "activation_bits": activation_bits},
            "calibrate": {"effort": args.effort},
            "reference": others,
            "run": {"seed": seed},
        }
    )


def show(rows: Sequence[Row], steps: int, guidance: float) -> None:
    """One line for each other sampler and calibration seed: the calibration at ``steps`` and ``guidance`` against its own."""
    table = Table(
        "sampled at", "calibration seed", f"calibrated at {steps}, guidance {guidance:g} (dB)", "calibrated there (dB)",
        "lost (dB)",
        title="PSNR, median / mean / lowest of the held-out seeds",
    )  # fmt: skip
    own = {(r["steps"], r["guidance"], r["seed"]): r for r in rows if r["calibrated"] == [r["steps"], r["guidance"]]}
    for row in rows:
        there = own.get((row["steps"], row["guidance"], row["seed"]))
        if row["calibrated"] != [steps, guidance] or there is None:
            continue
        mean, low, high = paired(there["values"], row["values"])
        lost = "" if there is row else f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"
        table.add_row(
            f"{row['steps']} steps, guidance {row['guidance']:g}",
            str(row["seed"]),
            _figures(row),
            _figures(there),
            lost,
        )
    Console(width=140).print(table)


def _figures(row: Row) -> str:
    values = sorted(row["values"])
    middle = (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2
    return f"{middle:.1f} / {sum(values) / len(values):.1f} / {values[0]:.1f}"


def main(args: argparse.Namespace, work: Path) -> None:
    file = work / f"rows-{args.bits}-{args.steps}-{args.guidance:g}.json"
    rows: list[Row] = json.loads(file.read_text()) if file.is_file() else []
    for seed in range(args.seeds):
        places = [
            (args.steps, args.guidance),
            *((n, args.guidance) for n in args.at),
            *((args.steps, w) for w in args.scales),
        ]
        for steps, guidance in places:
            if any(r["calibrated"] == [steps, guidance] and r["seed"] == seed for r in rows):
                continue
            recipe = recipe_at(args, steps, guidance, seed, more=(steps, guidance) == places[0])
            made = calibrated(recipe, Reporter(quiet=True), work / f"{args.bits}-{steps}-{guidance:g}-{seed}")
            rows += [{**row, "calibrated": [steps, guidance], "seed": seed} for row in runs(made, args.held_out)]
            file.write_text(json.dumps(rows, indent=1) + "\n")
    show(rows, args.steps, args.guidance)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="calibrated count")
    parser.add_argument("--at", type=lambda text: [int(n) for n in text.split(",") if n], default=[8, 50])
    parser.add_argument("--guidance", type=float, default=3.0, help="calibrated scale")
    parser.add_argument("--scales", type=lambda text: [float(w) for w in text.split(",") if w], default=[])
    parser.add_argument("--bits", default="W8A8")
    parser.add_argument("--effort", default="quick")
    parser.add_argument("--seeds", type=int, default=1, help="calibration seeds")
    parser.add_argument("--held-out", type=int, default=32, help="held-out seeds")
    parser.add_argument("--work", type=Path, help="keep checkpoints and rows here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        main(arguments, arguments.work or Path(scratch))
