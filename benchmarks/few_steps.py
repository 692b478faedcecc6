"""A transformer of four steps: what a step group per step and its modulation are worth, each against its control.

    python -m benchmarks.few_steps [--model models/flow_digits] [--cases "modulation at 8"] [--seeds 2] [--held-out 64]
                                   [--effort quick] [--json few_steps.json]

One set of activation parameters for all steps against one for each step, at 8 and 4 bits of the weights; then the modulation (the
linear layers behind the time embedding) at 4 bits, at 8 bits, in float, from a table of step vectors, and as a budget of the size
of the second chooses. Integer simulation on held-out seeds, whole sampler, against FP32.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table

import dq_toolchain as dq
from benchmarks.common import recorded
from dq_toolchain.calibrate import pipeline
from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.prepare.setup import setup as set_up
from dq_toolchain.toolchain.metrics import psnr

STEPS = 4
MODULATION = "*norm*.linear"
WIDER = "modulation_bits"
"""No setting of a recipe, which has bits for all layers, or a budget."""
CASES: dict[str, dict[str, Any]] = {
    "W8A8, one group": {"weight_bits": 8, "step_groups": 1},
    "W8A8, a group per step": {"weight_bits": 8, "step_groups": STEPS},
    "W4A8, one group": {"weight_bits": 4, "step_groups": 1},
    "W4A8, a group per step": {"weight_bits": 4, "step_groups": STEPS},
    "W4A8, modulation at 8 bits": {"weight_bits": 4, "step_groups": STEPS, WIDER: 8},
    "W4A8, modulation in float": {"weight_bits": 4, "step_groups": STEPS, "keep_float": [MODULATION]},
    "W4A8, step vectors": {"weight_bits": 4, "step_groups": STEPS, "step_vectors": True},
    "4 or 8 bits, size 0.16": {"budget": "size=0.16", "step_groups": STEPS},
}
Row = dict[str, Any]


def measure(args: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """One row for each calibration seed and case."""
    for seed in range(args.seeds):
        for name, settings in CASES.items():
            if args.cases not in name:
                continue
            recipe = {
                "run": {"seed": seed},
                "reference": {"seeds": args.held_out},
                "conditioning": {"file": args.model / "conditioning.safetensors"},
            }
            out, own = folder / f"{seed}-{name}", {key: value for key, value in settings.items() if key != WIDER}
            with wider_modulation(settings.get(WIDER)):
                made = dq.calibrate(
                    args.model, out=out, steps=STEPS, guidance=1.0, effort=args.effort, recipe=recipe, **own
                )
            reference = made.reference
            decibels = psnr(reference.simulation_latents[-1], reference.fp32_latents[-1])
            yield {
                "seed": seed,
                "case": name,
                "median": float(decibels.median()),
                "p10": float(torch.quantile(decibels, 0.1)),
            }


@contextmanager
def wider_modulation(bits: int | None) -> Iterator[None]:
    """Inside, calibrations give the weights of the modulation bits of their own; None leaves all as it is."""

    def setup(*given: Any, **named: Any) -> Context:
        context = set_up(*given, **named)
        sites = tuple(
            replace(site, weight_bits=bits) if site.weight_bits and fnmatchcase(site.layer, MODULATION) else site
            for site in context.prepared.sites
        )
        return replace(context, prepared=replace(context.prepared, sites=sites))

    with nullcontext() if bits is None else mock.patch.object(pipeline, "setup", setup):
        yield


def show(rows: list[Row]) -> None:
    table = Table("case", "seed", "PSNR median (dB)", "10th percentile")
    for row in sorted(rows, key=lambda row: list(CASES).index(row["case"])):
        table.add_row(row["case"], str(row["seed"]), f"{row['median']:.1f}", f"{row['p10']:.1f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/flow_digits"))
    parser.add_argument("--cases", default="", help="only those with this in their names")
    parser.add_argument("--seeds", type=int, default=2, help="calibration seeds")
    parser.add_argument("--held-out", type=int, default=64)
    parser.add_argument("--effort", default="quick")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        for row in recorded(measure(given, Path(temporary)), given.json):
            rows.append(row)
            print(json.dumps(row), flush=True)
    show(rows)
