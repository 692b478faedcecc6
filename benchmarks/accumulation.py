"""How errors add up over the steps of the sampler, and where they come from: what a fit over several steps can win.

    python -m benchmarks.accumulation --bits W8A8,W4A8 --guidance 1 --fits ranges,single-step,accuquant --effort quick
    python -m benchmarks.accumulation --model models/cifar10 --bits W4A8 --steps 20 --seeds 8 --work accumulation
    python -m benchmarks.accumulation --artifact dq-out/calibration --sources all,weights --json accumulation.json

Held-out seeds; three powers of the error of the finished sample. Closed loop: all steps are quantized. Open loop: the sum of the
steps' errors, each made at FP32's latents and carried to the end alone, by FP32. Incoherent: the sum of the powers of these
errors, which is what independent errors come to. A ratio of 1 means that nothing can be won between steps; N equal errors give N.

`bias`, `alike` and `rest` share the closed loop's power out, with every seed's errors scaled to an incoherent power of 1, so that
no seed decides alone: the mean over seeds; what the steps of one seed have in common, and what the network does to its own errors
(negative: they cancel out); and what independent steps would leave. --json has the shares without scaling as well.

Sources: all | weights | activations | clipping | attention (benchmarks/error_sources.py). Each costs N (N + 1) / 2 + N steps of all
seeds.

--fits: ranges is AccuQuant's start without any iteration, other names are methods. With --work a killed run goes on.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.common import merged, recorded
from benchmarks.error_sources import SOURCES, PartlyQuantized, Source, sources_of
from benchmarks.injected_errors import Accumulation, injected_errors, steps_of
from dq_toolchain.calibrate.compare.grid import parse_bits
from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.data.rollouts import Rollouts, rollouts_of
from dq_toolchain.calibrate.data.samples import Samples, held_out_seeds
from dq_toolchain.calibrate.methods import resolve
from dq_toolchain.calibrate.pipeline import calibrated
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.errors import ToolchainError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.metrics import psnr
from dq_toolchain.toolchain.recipe.loading import load_recipe
from dq_toolchain.toolchain.sampler.denoiser import Denoiser

RANGES = "ranges"
NO_FIT = {"rounding": "nearest", "warmup": 0, "iterations": 0, "settling": 0, "group_iterations": 0}
BLOCKS = 5
"""Rows and columns of a correlation matrix as it is printed."""
Row = dict[str, Any]


class Measurement:
    """FP32's rollouts of held-out seeds, and what an artifact's errors do to them."""

    def __init__(self, context: Context, seeds: int, reporter: Reporter) -> None:
        self.context, self.reporter = context, reporter
        self.samples: Samples = context.draw(held_out_seeds(seeds))
        self.fp32 = self._run(context.network)

    def _run(self, network: torch.nn.Module, artifact: Artifact | None = None) -> Rollouts:
        return rollouts_of(
            network,
            self.context.table if artifact is None else artifact.table,
            self.samples,
            guidance=self.context.guidance,
            batch=self.context.rollout_batch,
            device=self.context.device,
            set_step=network.set_step if isinstance(network, PartlyQuantized) else None,
        )

    def row(self, artifact: Artifact, fp32: torch.nn.Module, source: Source) -> Row:
        """The figures of one source. A correction at run time belongs to ``all`` alone.

        Args:
            fp32: what the artifact was made from, with its own splits and smoothing.
        """
        context, samples = self.context, self.samples
        network = PartlyQuantized(artifact, fp32, source)
        corrected = artifact if source == "all" else None
        final = self._run(network, corrected).latents[-1]
        targets = self.fp32.select(slice(None), context.device)
        quantized_table = context.table if corrected is None else corrected.table
        conditioning = samples.conditioning.to(context.device)
        rows = torch.arange(len(samples))

        def exact(copies: int) -> Denoiser:
            return context.denoiser(context.network, samples.select(rows.repeat(copies)), batch=context.rollout_batch)

        quantized = Denoiser(network, quantized_table, conditioning, context.guidance, network.set_step)
        with self.reporter.task(f"errors of {source}", steps_of(context.table.calls)) as advance:
            injected = injected_errors(
                context.table, exact, quantized, targets,
                noise=context.noise(samples), quantized_table=quantized_table, advance=advance,
            )  # fmt: skip
        values = psnr(final, self.fp32.latents[-1]).tolist()
        found = Accumulation.of(final - self.fp32.latents[-1], injected.cpu())
        return {"source": source, "psnr": values, **found.figures()}


def measure(
    artifact: Artifact, fp32: torch.nn.Module, measurement: Measurement, sources: Sequence[Source], about: Row
) -> Iterator[Row]:
    """One row for each source that the artifact has."""
    for source in sources_of(artifact):
        if source in sources:
            yield {**about, **measurement.row(artifact, fp32, source)}


def made(args: argparse.Namespace, work: Path, reporter: Reporter) -> Iterator[Row]:
    """Artifacts of every width, fit by fit, all on the same held-out seeds."""
    measurement = None
    for weight_bits, activation_bits in parse_bits(args.bits):
        for fit in args.fits:
            flags = merged(
                {
                    "model": {"path": args.model},
                    "quantize": {"weight_bits": weight_bits, "activation_bits": activation_bits},
                    "sampler": {"steps": args.steps, "guidance": args.guidance},
                    "calibrate": {"effort": args.effort, "method": "accuquant" if fit == RANGES else fit},
                },
                {"calibrate": NO_FIT} if fit == RANGES else {},
            )
            reporter.say(f"W{weight_bits}A{activation_bits}, {fit}")
            done = calibrated(load_recipe(args.recipe, flags), reporter, work)
            measurement = measurement or Measurement(done.context, args.seeds, reporter)
            about = {
                "bits": f"W{weight_bits}A{activation_bits}", "fit": fit, "guidance": done.context.guidance,
                "steps": done.context.table.calls, "stages": done.artifact.record["stages"],
            }  # fmt: skip
            yield from measure(done.artifact, done.context.network, measurement, args.sources, about)


def loaded(args: argparse.Namespace, reporter: Reporter) -> Iterator[Row]:
    """The artifact of a folder, with the model that its record names, or ``--model``."""
    artifact = Artifact.load(args.artifact)
    recipe = load_recipe(None, merged(artifact.record["recipe"], {"model": {"path": args.model}} if args.model else {}))
    context = setup(recipe, resolve(recipe.calibrate.method))
    if context.model.weight_hash != artifact.weight_hash:
        raise SystemExit(
            f"{args.artifact} was made from other weights than {context.model.folder} has; name the folder of "
            f"{artifact.model_id} with --model"
        )
    about = {
        "bits": f"W{recipe.quantize.weight_bits}A{recipe.quantize.activation_bits}", "fit": recipe.calibrate.method,
        "guidance": artifact.guidance, "steps": artifact.table.calls, "stages": artifact.record["stages"],
    }  # fmt: skip
    yield from measure(artifact, context.network, Measurement(context, args.seeds, reporter), args.sources, about)


def spread(ratio: dict[str, float] | None) -> str:
    return "-" if ratio is None else f"{ratio['median']:.2f} ({ratio['p10']:.2f} to {ratio['p90']:.2f})"


def shares(split: dict[str, float] | None) -> list[str]:
    return ["-" if split is None else f"{split[part] / split['power']:.0%}" for part in ("bias", "alike", "rest")]


def show(rows: Sequence[Row]) -> None:
    """One line a source: median PSNR, ratios (median, 10th to 90th percentile of seeds), and shares of the closed loop's power."""
    table = Table("bits", "fit", "guidance", "steps", "source", "PSNR (dB)", "closed / incoherent", "open / incoherent",
                  "bias", "alike", "rest")  # fmt: skip
    for row in rows:
        table.add_row(
            row["bits"], row["fit"], f"{row['guidance']:g}", str(row["steps"]), row["source"],
            f"{torch.tensor(row['psnr']).median():.1f}", spread(row["closed_ratio"]), spread(row["open_ratio"]),
            *shares(row["closed_split_scaled"]),
        )  # fmt: skip
    console = Console(width=150)
    console.print(table)
    for row in rows:
        if row["source"] == "all":
            title = f"{row['bits']}, {row['fit']}, guidance {row['guidance']:g}: correlation of the steps' final errors"
            console.print(title, coarse(torch.tensor(row["correlation"])), sep="\n")


def coarse(matrix: torch.Tensor) -> Table:
    """An (N, N) correlation matrix by blocks of steps: means of what is off the diagonal, 1 where nothing is."""
    parts = torch.arange(len(matrix)).tensor_split(min(BLOCKS, len(matrix)))
    off = matrix.clone().fill_diagonal_(float("nan"))
    names = [f"{int(part[0])}-{int(part[-1])}" for part in parts]
    table = Table("steps", *names, box=None)
    for name, row in zip(names, parts, strict=True):
        table.add_row(name, *(f"{off[row][:, column].nanmean().nan_to_num(1.0):.2f}" for column in parts))
    return table


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--artifact", type=Path, help="folder that `calibrate` wrote; default: artifacts are made here")
    found.add_argument("--model", type=Path, help="diffusers folder; default: the embedded model, or the artifact's")
    found.add_argument("--bits", default="W8A8,W4A8", help="of what is made here  [default: W8A8,W4A8]")
    found.add_argument("--fits", type=_list, default=[RANGES], help="ranges, or names of methods  [default: ranges]")
    found.add_argument("--effort", help="quick | standard | best  [default: standard]")
    found.add_argument("--recipe", type=Path, help="TOML file, for iterations and everything else")
    found.add_argument("--steps", type=int, help="denoising steps  [default: 20]")
    found.add_argument("--guidance", type=float, help="[default: the model's own]")
    found.add_argument("--seeds", type=int, default=16, help="held-out seeds, 2 or more  [default: 16]")
    found.add_argument(
        "--sources", type=_list, default=list(SOURCES), help="some of them  [default: all that are there]"
    )
    found.add_argument("--work", type=Path, help="keep checkpoints here")
    found.add_argument("--json", type=Path, help="also write the rows here, with whole matrices")
    return found


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def main(args: argparse.Namespace) -> list[Row]:
    unknown = [source for source in args.sources if source not in SOURCES]
    if unknown or args.seeds < 2:
        raise SystemExit(
            f"--sources: got {unknown[0]!r}, allowed are {', '.join(SOURCES)}" if unknown
            else f"--seeds: got {args.seeds}, at least 2 are needed to tell a bias from the rest"
        )  # fmt: skip
    reporter = Reporter()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            found = loaded(args, reporter) if args.artifact else made(args, args.work or Path(scratch), reporter)
            rows = list(recorded(found, args.json))
        except ToolchainError as error:
            raise SystemExit(str(error)) from error
    show(rows)
    return rows


if __name__ == "__main__":
    main(parser().parse_args())
