"""What rounding could win by seeing the sum over the steps: a bound for each layer, and whole runs.

    python -m benchmarks.coherence [--model models/cifar10] [--bits W4A8] [--guidance 3] [--seeds 2] [--trajectories 32]

Weights are rounded in closed form with two Hessians of the finished sample (benchmarks/run_hessians.py): of the steps apart, and of
their sum, which is the error at the end as it is. Both roundings are then measured with both Hessians, of the same trajectories and
of others, in dB below rounding to nearest. What the second rounding gains on the first in the second measure is what integers can
win between the steps, layer by layer and to first order. No fit follows; PSNR is of the integer simulation on held-out seeds.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.common import (
    Judge,
    NoCheckpoint,
    Prepared,
    prepare,
    recipe_of,
    recorded,
    study_parser,
    study_recipe,
    work_of,
)
from benchmarks.run_hessians import Pair, run_hessians
from dq_toolchain.calibrate.blocks.second_order import has_patches, rounded
from dq_toolchain.calibrate.finalize import finalize
from dq_toolchain.calibrate.network.insert import QuantizedNetwork
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.quant.sites import weighted_layers
from dq_toolchain.toolchain.recipe.effort import effective
from dq_toolchain.toolchain.recipe.sections import Recipe

ROUNDINGS = ("nearest", "steps apart", "sum over steps")
MEASURES = ("own_apart", "own_sum", "apart", "sum")
"""Of the trajectories that decided, then of others."""
Row = dict[str, Any]
Integers = Mapping[str, Tensor]


def rounding(network: QuantizedNetwork, hessians: Mapping[str, Pair], kind: str) -> Integers:
    """Layer -> integers, shape of its weight."""
    found = {}
    for name, pair in hessians.items():
        quantizer = network.layers[name].weight_quantizer
        ratio, lowest, highest = quantizer.ratio.detach(), quantizer.kind.qmin, quantizer.kind.qmax
        if kind == "nearest":
            found[name] = ratio.round().clamp(lowest, highest)
        else:
            found[name] = rounded(ratio, [pair.apart if kind == "steps apart" else pair.together], lowest, highest)
    return found


def predicted(
    network: QuantizedNetwork, integers: Integers, noise: Mapping[str, Tensor], hessians: Mapping[str, Pair]
) -> tuple[float, float]:
    """Power of the error that rounding makes in the finished samples, as if layers were independent: steps apart, and their sum."""
    sums = [0.0, 0.0]
    for name, pair in hessians.items():
        error = network.layers[name].weight_quantizer.ratio.detach() - integers[name]
        rows = error.flatten(1).unflatten(0, (len(pair.apart), -1)).double()
        for i, hessian in enumerate((pair.apart, pair.together)):
            sums[i] += float(noise[name] * ((rows @ hessian.double()) * rows).sum())
    return sums[0], sums[1]


def measure(args: argparse.Namespace, reporter: Reporter) -> Iterator[Row]:
    """Three rows for each calibration seed."""
    judge: Judge | None = None
    for seed in range(args.seeds):
        recipe = recipe_for(args, seed)
        prepared = prepare(recipe)
        context = prepared.context
        judge = judge or Judge(context, args.held_out)
        start = fresh(prepared, recipe)
        layers = {n: layer for n, layer in weighted_layers(context.network) if n in start.layers and has_patches(layer)}
        noise = {name: start.layers[name].weight_quantizer.searched.square().mean() for name in layers}
        parts = (slice(0, args.trajectories), slice(args.trajectories, None))
        with reporter.task("runs and back", len(context.samples)) as advance:
            fitted, held = (run_hessians(context, layers, noise, context.samples.select(p), advance) for p in parts)
        nearest: tuple[float, ...] = ()
        for kind in ROUNDINGS:
            integers = rounding(start, fitted, kind)
            powers = (*predicted(start, integers, noise, fitted), *predicted(start, integers, noise, held))
            nearest = nearest or powers
            network = fresh(prepared, recipe)
            for name, values in integers.items():
                network.layers[name].weight_quantizer.choose(values)
            gains = (10 * math.log10(first / power) for first, power in zip(nearest, powers, strict=True))
            about = {"seed": seed, "rounding": kind, "ratio": powers[3] / powers[2]}
            figures = judge.figures(finalize(network, context, {}))
            yield {**about, **dict(zip(MEASURES, gains, strict=True)), **figures}


def recipe_for(args: argparse.Namespace, seed: int) -> Recipe:
    """Calibration samples for both sets of trajectories, and no fit."""
    samples = args.trajectories + max(2, args.trajectories // 2)
    calibrate = {"effort": "quick", "samples": samples, "warmup": 0}
    own = {"sampler": {"guidance": args.guidance}, "run": {"seed": seed}}
    return effective(recipe_of(study_recipe(args, calibrate), own))


def fresh(prepared: Prepared, recipe: Recipe) -> QuantizedNetwork:
    """Ranges as they were measured; weights have no integers yet."""
    return work_of(prepared, recipe, NoCheckpoint()).network


def show(rows: list[Row]) -> None:
    names = {"own_apart": "apart, own", "own_sum": "sum, own", "apart": "apart", "sum": "sum", "ratio": "sum / apart",
             "psnr": "PSNR (dB)", "psnr_p10": "10th percentile", "psnr_pooled": "pooled"}  # fmt: skip
    table = Table("seed", "rounding", *names.values())
    for row in rows:
        table.add_row(str(row["seed"]), row["rounding"], *(f"{row[name]:.2f}" for name in names))
    Console(width=130).print(table)


def parser() -> argparse.ArgumentParser:
    found = study_parser(__doc__)
    found.set_defaults(held_out=64)
    found.add_argument("--guidance", type=float, default=1.0)
    found.add_argument("--trajectories", type=int, default=32, help="half as many others measure  [default: 32]")
    return found


def main(args: argparse.Namespace) -> list[Row]:
    rows = list(recorded(measure(args, Reporter()), args.json))
    show(rows)
    return rows


if __name__ == "__main__":
    main(parser().parse_args())
