"""Whether ``analyze`` predicts what float gains: shares of layers against runs in which these layers alone are in float.

    python -m benchmarks.layer_shares dq-out/calibration --layers conv_in conv_out --seeds 64

The integers of all other layers stay as they are; nothing is fitted again. PSNR is of held-out samples, paired.
"""

from __future__ import annotations

import argparse
import json
from math import log10
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.effort import paired
from dq_toolchain.calibrate.bits.analysis import analyze
from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.data.rollouts import rollouts_of
from dq_toolchain.calibrate.data.samples import held_out_seeds
from dq_toolchain.calibrate.methods import resolve
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.metrics import psnr
from dq_toolchain.toolchain.recipe.loading import load_recipe
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork


@torch.no_grad()
def sampled(artifact: Artifact, context: Context, seeds: int, in_float: tuple[str, ...]) -> Tensor:
    """(S, ...) finished samples of the simulation, with FP32's own layers in some places."""
    network = SimulatedNetwork(artifact, "fake_quantize")
    for name in in_float:
        network.inner.set_submodule(name, context.network.get_submodule(name))
    samples = context.draw(held_out_seeds(seeds))
    made = rollouts_of(
        network, context.table, samples, guidance=context.guidance, batch=context.rollout_batch, device=context.device,
        set_step=network.set_step,
    )  # fmt: skip
    return made.latents[-1]


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each layer alone, and one for all of them together."""
    artifact = Artifact.load(args.calibration)
    recipe = load_recipe(None, artifact.record["recipe"])
    context = setup(recipe, resolve(recipe.calibrate.method))
    found = analyze(args.calibration, Reporter(), runs=args.runs)
    shares = {row.layer: row.share for row in found.layers}
    names = args.layers or [row.layer for row in found.layers[:5]]
    samples = context.draw(held_out_seeds(args.seeds))
    fp32 = rollouts_of(
        context.network, context.table, samples, guidance=context.guidance, batch=context.rollout_batch, device=context.device
    ).latents[-1]  # fmt: skip
    before = psnr(sampled(artifact, context, args.seeds, ()), fp32).tolist()
    rows = []
    for chosen in (*((name,) for name in names), tuple(names)):
        share = sum(shares[name] for name in chosen)
        after = psnr(sampled(artifact, context, args.seeds, chosen), fp32).tolist()
        mean, low, high = paired(after, before)
        rows.append({
            "in_float": chosen, "share": share, "predicted": -10 * log10(1 - share), "measured": mean, "low": low, "high": high,
            "median_before": float(torch.tensor(before).quantile(0.5)), "median_after": float(torch.tensor(after).quantile(0.5)),
        })  # fmt: skip
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(
        "in float", "share of the error", "predicted (dB)", "measured, mean of paired differences (95 %)", "median PSNR"
    )
    for row in rows:
        table.add_row(
            ", ".join(row["in_float"]), f"{row['share']:.1%}", f"{row['predicted']:.2f}",
            f"{row['measured']:.2f} ({row['low']:.2f} to {row['high']:.2f})",
            f"{row['median_before']:.1f} -> {row['median_after']:.1f}",
        )  # fmt: skip
    Console(width=160).print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("calibration", type=Path, help="folder of an artifact")
    parser.add_argument("--layers", nargs="*", help="default: the five with the largest shares")
    parser.add_argument("--runs", type=int, default=32, help="of analyze")
    parser.add_argument("--seeds", type=int, default=64, help="held-out samples to judge on")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    arguments = parser.parse_args()
    found_rows = measure(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(found_rows, indent=1) + "\n")
    show(found_rows)
