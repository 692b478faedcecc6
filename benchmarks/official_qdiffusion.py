"""Q-Diffusion's own code against our `qdiffusion`: same network, FP32 trajectories, rows and iterations; held-out seeds.

    git clone https://github.com/Xiuyu-Li/q-diffusion
    python -m benchmarks.official_qdiffusion --checkout q-diffusion --model models/cifar10 --recipe benchmarks/cifar10_short.toml \\
        --bits W4A8 --steps 20 --seeds 1 --held-out 64

Nothing of the checkout is changed; what it lacks for diffusers' networks is in benchmarks/qdiff_checkout.py. Its code is run

- with our quantizers: ranges, scales, 8-bit edges and float attention products as our method has them, so that what differs is the
  reconstruction alone;
- with its own: those of its scripts for DDIM and for latent diffusion, every layer at the same bits, attention products quantized,
  and once more with 8-bit edges.

Each at its own learning rate of the rounding (Adam's 1e-3, which is meant for 20,000 iterations) and at ours, which is made for the
iterations of the recipe; --longer adds its own rate with so many times the iterations. PSNR of the finished samples against FP32.
With --json rows that are done stay.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.common import Judge, NoCheckpoint, Prepared, merged, prepare, study_parser, study_recipe, work_of
from benchmarks.qdiff_checkout import load_checkout
from benchmarks.qdiff_run import OWN_RATE, Quantizers, Run, given_by, reconstructed
from dq_toolchain.calibrate.blocks.options import BlockBudget
from dq_toolchain.calibrate.finalize import finalize
from dq_toolchain.calibrate.fitting.phase import Work, phases_of
from dq_toolchain.calibrate.fitting.rows import drawn_rows
from dq_toolchain.calibrate.fitting.run import fit_network
from dq_toolchain.calibrate.methods import effective, resolve
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.toolchain.metrics import psnr
from dq_toolchain.toolchain.recipe.loading import load_recipe
from dq_toolchain.toolchain.recipe.sections import Recipe

METHOD, OURS, OURS_AFFINE = "qdiffusion", "ours", "ours, affine activations"
Row = dict[str, Any]


@dataclass(frozen=True)
class Seed:
    """One calibration seed: what both sides start from."""

    recipe: Recipe
    prepared: Prepared
    judge: Judge

    @property
    def work(self) -> Work:
        """Our network before its fit."""
        return work_of(self.prepared, self.recipe, NoCheckpoint())

    @property
    def affine(self) -> Seed:
        """The same with zero_points of activations, as their scripts have them by default."""
        recipe = self.recipe.model_copy(
            update={"quantize": self.recipe.quantize.model_copy(update={"scheme": "affine"})}
        )
        context = self.prepared.context
        sites = tuple(replace(site, scheme="affine") for site in context.prepared.sites)
        context = replace(context, prepared=replace(context.prepared, sites=sites))
        return replace(self, recipe=recipe, prepared=replace(self.prepared, recipe=recipe, context=context))

    def row(self, name: str, samples: torch.Tensor, seconds: float) -> Row:
        values = psnr(samples, self.judge.fp32)
        return {
            "code": name,
            "seed": self.recipe.run.seed,
            "median": float(values.quantile(0.5)),
            "p10": float(values.quantile(0.1)),
            "seconds": seconds,
            "values": values.tolist(),
        }


def ours(seed: Seed, name: str) -> Row:
    """Our fit, as ``compare`` does it, and the integer simulation's samples."""
    work = seed.work
    fitted = fit_network(phases_of(resolve(METHOD).fit, seed.recipe), work)
    artifact = finalize(work.network, seed.prepared.context, {})
    return seed.row(name, seed.judge.simulated(artifact), fitted.seconds)


def theirs(seed: Seed, parts: dict[str, ModuleType], name: str, run: Run) -> Row:
    """Their code on the rows of our fit."""
    context, work = seed.prepared.context, seed.work
    fp32 = context
    if run.own_activations:  # their code splits by itself
        whole = seed.recipe.model_copy(update={"quantize": seed.recipe.quantize.model_copy(update={"split": False})})
        fp32 = setup(whole, resolve(METHOD))
    names = [site.layer for site in fp32.prepared.sites if site.weight_bits is not None]
    begin = time.perf_counter()
    network = reconstructed(
        parts, fp32.network, drawn_rows(work), run, names=names, edges=fp32.prepared.edges, splits=context.prepared.splits,
        given=given_by(work.network), seed=seed.recipe.run.seed, device=context.device,
    )  # fmt: skip
    return seed.row(name, seed.judge.run(network, context.table), time.perf_counter() - begin)


def runs_of(recipe: Recipe, longer: int | None) -> Iterator[tuple[str, Run]]:
    """Names and settings of the runs of their code."""
    blocks = recipe.blocks
    equal = Run(
        quantizers=None, iterations=blocks.iterations, activation_iterations=blocks.activation_iterations,
        batch=blocks.batch, lr=BlockBudget.lr,
    )  # fmt: skip
    bits, edges = recipe.quantize.weight_bits, recipe.quantize.edge_bits
    ldm = Quantizers("mse", "mse", False, bits, activation_bits=recipe.quantize.activation_bits)
    ddim = replace(ldm, weight_method="max", activation_method="max", symmetric=True)
    own_rate = replace(equal, lr=OWN_RATE)
    yield "theirs, our quantizers, our rate", equal
    yield "theirs, our quantizers", own_rate
    yield (
        "theirs, LDM weights, 8-bit edges, our rate",
        replace(equal, quantizers=replace(ldm, edge_bits=edges), own_weights_only=True),
    )
    yield "theirs, LDM quantizers, 8-bit edges, our rate", replace(equal, quantizers=replace(ldm, edge_bits=edges))
    yield "theirs, LDM quantizers, our rate", replace(equal, quantizers=ldm)
    yield "theirs, LDM quantizers", replace(own_rate, quantizers=ldm)
    yield "theirs, DDIM quantizers, 8-bit edges, our rate", replace(equal, quantizers=replace(ddim, edge_bits=edges))
    yield "theirs, DDIM quantizers", replace(own_rate, quantizers=ddim)
    if longer is not None:
        long = replace(
            own_rate, iterations=longer * blocks.iterations, activation_iterations=longer * blocks.activation_iterations
        )
        yield f"theirs, our quantizers, {longer}x", long
        yield f"theirs, LDM quantizers, 8-bit edges, {longer}x", replace(long, quantizers=replace(ldm, edge_bits=edges))


def measure(args: argparse.Namespace, parts: dict[str, ModuleType], done: Collection[tuple[str, int]]) -> Iterator[Row]:
    """A row for each code and calibration seed that is wanted and not done."""
    for number in range(args.seeds):
        flags = merged(study_recipe(args, {"method": METHOD}), {"run": {"seed": number}})
        recipe = effective(load_recipe(args.recipe, flags))
        wanted: dict[str, Run | None] = {OURS: None, OURS_AFFINE: None, **dict(runs_of(recipe, args.longer))}
        unknown = [name for name in args.only or () if name not in wanted]
        if unknown:
            raise SystemExit(f"--only: got {unknown[0]!r}, allowed are {', '.join(map(repr, wanted))}")
        left = [name for name in wanted if (name, number) not in done and (args.only is None or name in args.only)]
        if not left:
            continue
        prepared = prepare(recipe)
        seed = Seed(recipe, prepared, Judge(prepared.context, args.held_out))
        for name in left:
            run = wanted[name]
            if run is not None:
                yield theirs(seed, parts, name, run)
            else:
                yield ours(seed if name == OURS else seed.affine, name)


def show(rows: list[Row]) -> None:
    """A line for each code: the mean over calibration seeds, lowest and highest in brackets."""
    table = Table("code", "PSNR, median (dB)", "10th percentile", "seconds")
    for name in dict.fromkeys(row["code"] for row in rows):
        own = [row for row in rows if row["code"] == name]
        table.add_row(name, *(spread([row[key] for row in own], form) for key, form in COLUMNS))
    Console(width=140).print(table)


COLUMNS = (("median", ".2f"), ("p10", ".2f"), ("seconds", ".0f"))


def spread(values: list[float], form: str) -> str:
    mean = f"{sum(values) / len(values):{form}}"
    return mean if len(values) == 1 else f"{mean} ({min(values):{form}}-{max(values):{form}})"


def parser() -> argparse.ArgumentParser:
    found = study_parser(__doc__)
    found.add_argument("--checkout", type=Path, required=True, help="folder of Q-Diffusion's repository")
    found.add_argument("--recipe", type=Path, help="TOML file with [blocks] and everything else")
    found.add_argument("--longer", type=int, help="times the iterations, at their own learning rate")
    found.add_argument("--only", nargs="*", help=f"rows by name, such as {OURS!r} 'theirs, our quantizers, our rate'")
    return found


def main(args: argparse.Namespace) -> list[Row]:
    parts, file = load_checkout(args.checkout), args.json
    rows: list[Row] = json.loads(file.read_text()) if file is not None and file.is_file() else []
    for row in measure(args, parts, {(row["code"], row["seed"]) for row in rows}):
        rows.append(row)
        print(
            f"{row['code']}, seed {row['seed']}: {row['median']:.2f} / {row['p10']:.2f} dB, {row['seconds']:.0f} s",
            flush=True,
        )
        if file is not None:
            file.write_text(json.dumps(rows, indent=1) + "\n")
    show(rows)
    return rows


if __name__ == "__main__":
    main(parser().parse_args())
