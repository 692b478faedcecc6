"""How far FP32's own samples leave their course when each of its outputs carries white noise: the control of a lowest PSNR.

    python -m benchmarks.sensitivity --guidance 3 --noise 0.008,0.02,0.03 [--model FOLDER] [--draws 6] [--held-out 64]

The noise has a share of the output's root mean square, the same for all samples and steps, and is drawn anew for each call, so
that it does not add up. A seed that is the lowest in every draw is one on which this model decides late or narrowly: its PSNR
says little about a quantized network.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.common import Judge, merged, recipe_of, study_parser, study_recipe
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.toolchain.metrics import psnr
from dq_toolchain.toolchain.quant.hooks import hooks

Row = dict[str, Any]


def noisy(judge: Judge, share: float, generator: torch.Generator) -> Tensor:
    """(S,) PSNR in dB of FP32's samples with noise of ``share`` in each output, against those without."""
    network = judge.context.network

    def add(_network: nn.Module, _args: tuple[Any, ...], out: Any) -> Any:
        first: Tensor = out[0] if isinstance(out, tuple) else out
        size = share * first.square().mean(tuple(range(1, first.dim())), keepdim=True).sqrt()
        drawn = first + size * torch.randn(first.shape, generator=generator).to(first)
        return (drawn, *out[1:]) if isinstance(out, tuple) else drawn

    with hooks([network.register_forward_hook(add)]):
        return psnr(judge.run(network, judge.context.table), judge.fp32)


def measure(judge: Judge, shares: list[float], draws: int) -> Iterator[Row]:
    """One row for each share of noise: figures of every draw, and how often each seed was the lowest."""
    for share in shares:
        generator = torch.Generator().manual_seed(0)
        values = torch.stack([noisy(judge, share, generator) for _ in range(draws)])
        yield {
            "noise": share,
            "psnr": values.quantile(0.5, dim=1).tolist(),
            "psnr_p10": values.quantile(0.1, dim=1).tolist(),
            "psnr_pooled": (-10 * (10 ** (-values / 10)).mean(1).log10()).tolist(),
            "psnr_lowest": values.min(1).values.tolist(),
            "lowest_seeds": Counter(values.argmin(1).tolist()).most_common(),
        }


def show(rows: list[Row]) -> None:
    names = ("psnr", "psnr_p10", "psnr_pooled", "psnr_lowest")
    table = Table("noise", "PSNR (dB)", "10th percentile", "pooled", "lowest", "lowest seeds: draws")
    for row in rows:
        ranges = (f"{min(row[name]):.1f} to {max(row[name]):.1f}" for name in names)
        seeds = ", ".join(f"{seed}: {count}" for seed, count in row["lowest_seeds"])
        table.add_row(f"{row['noise']:g}", *ranges, seeds)
    Console(width=140).print(table)


def parser() -> argparse.ArgumentParser:
    found = study_parser(__doc__)
    found.add_argument("--guidance", type=float, default=1.0)
    found.add_argument("--noise", default="0.008,0.02,0.03", help="shares of the output's root mean square")
    found.add_argument("--draws", type=int, default=6)
    found.set_defaults(held_out=64)
    return found


def main(args: argparse.Namespace) -> list[Row]:
    settings = merged(study_recipe(args, {}), {"sampler": {"guidance": args.guidance}})
    judge = Judge(setup(recipe_of(settings)), args.held_out)
    rows = list(measure(judge, [float(share) for share in args.noise.split(",")], args.draws))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    show(rows)
    return rows


if __name__ == "__main__":
    main(parser().parse_args())
