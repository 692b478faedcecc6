"""Whole calibrations with each precision of FP32 rollouts, ranges and validation, on the same held-out seeds, paired.

    python -m benchmarks.precision [--bits W8A8,W4A8] [--precisions exact,tf32,bf16] [--effort quick] [--held-out 64]
        [--model FOLDER] [--device auto] [--seeds 1] [--work FOLDER]

The verdict is that of `validate` (fidelity): limits are derived from the simulation of the exact calibration, and the
simulation of the other one is judged by them as a device would be. A CPU has no TF32: there its operands are rounded to 10
bits behind the point, as TF32's are, and sums stay float32. With --work a killed run goes on, and rows that are done stay.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from benchmarks.common import recipe_of
from benchmarks.effort import paired
from dq_toolchain.calibrate.compare.grid import parse_bits
from dq_toolchain.calibrate.data.samples import held_out_seeds
from dq_toolchain.calibrate.finalize import held_out_reference
from dq_toolchain.calibrate.network.channels_last import to_host
from dq_toolchain.calibrate.network.precision import computing_in
from dq_toolchain.calibrate.pipeline import Calibrated, calibrated
from dq_toolchain.calibrate.prepare.setup import choose_device
from dq_toolchain.toolchain.checks import overall
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.metrics import psnr
from dq_toolchain.toolchain.recipe.sections import Precision
from dq_toolchain.toolchain.verdict.fidelity import fidelity
from dq_toolchain.toolchain.verdict.limits import limits_for

Row = dict[str, Any]
BATCH = 32
DROPPED = 13
"""Bits of a float32 that TF32 lacks."""
aten = torch.ops.aten
PRODUCTS = {
    aten.convolution.default,
    aten.addmm.default,
    aten.mm.default,
    aten.bmm.default,
    aten.baddbmm.default,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
}


def to_tf32(x: Tensor) -> Tensor:
    """Float32 rounded to the nearest number with 10 bits behind the point, ties away from zero, as float32."""
    return ((x.contiguous().view(torch.int32) + (1 << (DROPPED - 1))) & -(1 << DROPPED)).view(torch.float32)


class RoundedOperands(TorchDispatchMode):
    """What TF32 makes of products: operands are shortened, sums are not."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in PRODUCTS:
            args = tree_map(lambda x: to_tf32(x) if isinstance(x, Tensor) and x.dtype == torch.float32 else x, args)
        return function(*args, **(kwargs or {}))


@contextmanager
def _emulated(precision: Precision, device: torch.device) -> Iterator[None]:
    if precision != "tf32":
        with computing_in(precision, device):
            yield
    else:
        with RoundedOperands():  # type: ignore[no-untyped-call]
            yield


@contextmanager
def tf32_on_a_cpu() -> Iterator[None]:
    """Inside, calibrations on a CPU take ``tf32`` for an answer."""
    with (
        mock.patch("dq_toolchain.calibrate.data.context.computing_in", _emulated),
        mock.patch("dq_toolchain.calibrate.prepare.setup.check_precision", return_value=None),
    ):
        yield


def reference_of(made: Calibrated, seeds: int) -> Reference:
    """The artifact on held-out seeds, exact and on the CPU, as `calibrate` writes it."""
    samples = made.context.draw(held_out_seeds(seeds))
    to_host(made.context.network)
    return held_out_reference(made.artifact, made.context.network, made.context.table, samples, batch=BATCH)


def row_of(key: Mapping[str, Any], made: Calibrated, found: Reference, exact: Reference) -> Row:
    """Figures of one calibration beside those of the exact one with the same settings."""
    values = [psnr(each.simulation_latents[-1], each.fp32_latents[-1]).tolist() for each in (found, exact)]
    checks = fidelity(found.simulation_latents, exact, limits_for(exact)["fidelity"])
    return {
        **key,
        "device": made.artifact.record["device"],
        "seconds": made.seconds,
        "psnr": sorted(values[0])[len(values[0]) // 2],
        "values": values[0],
        "to_exact": paired(*values),
        "verdict": overall(checks),
        "checks": [check.detail for check in checks],
    }


def show(rows: Sequence[Row]) -> None:
    """One line a calibration."""
    table = Table("bits", "precision", "seed", "device", "seconds", "PSNR, median (dB)", "to exact (dB)", "verdict")
    for row in rows:
        mean, low, high = row["to_exact"]
        table.add_row(
            row["bits"], row["precision"], str(row["seed"]), row["device"], f"{row['seconds']:.0f}", f"{row['psnr']:.2f}",
            "" if row["precision"] == "exact" else f"{mean:+.2f} ({low:+.2f} to {high:+.2f})", row["verdict"],
        )  # fmt: skip
    Console(width=120).print(table)


def measure(args: argparse.Namespace, work: Path) -> list[Row]:
    """Every calibration that is not in ``work`` yet; the exact one of its settings comes first."""
    file = work / "rows.json"
    rows: list[Row] = json.loads(file.read_text()) if file.is_file() else []
    done = {(row["bits"], row["precision"], row["seed"]) for row in rows}
    for seed in range(args.seeds):
        for weight_bits, activation_bits in parse_bits(args.bits):
            bits, exact = f"W{weight_bits}A{activation_bits}", None
            for precision in args.precisions.split(","):
                if (bits, precision, seed) in done and precision != "exact":
                    continue
                recipe = recipe_of(
                    {
                        "model": {"path": args.model},
                        "quantize": {"weight_bits": weight_bits, "activation_bits": activation_bits},
                        "calibrate": {"effort": args.effort, **args.calibrate},
                        "sampler": args.sampler,
                        "run": {"seed": seed, "precision": precision, "device": args.device},
                    }
                )
                made = calibrated(recipe, Reporter(quiet=True), work / f"{bits}-{precision}-s{seed}")
                found = reference_of(made, args.held_out)
                exact = found if precision == "exact" else exact
                if exact is None:
                    raise SystemExit(
                        f"--precisions: got {args.precisions}; begin with exact, which others are compared to"
                    )
                if (bits, precision, seed) not in done:
                    rows.append(row_of({"bits": bits, "precision": precision, "seed": seed}, made, found, exact))
                    file.write_text(json.dumps(rows, indent=1) + "\n")
    return rows


def main(args: argparse.Namespace, work: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    if choose_device(args.device).type == "cpu":
        with tf32_on_a_cpu():
            show(measure(args, work))
    else:
        show(measure(args, work))


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="diffusers folder; default: the embedded model")
    parser.add_argument("--bits", default="W8A8,W4A8")
    parser.add_argument(
        "--precisions", default="exact,tf32,bf16", help=f"of {', '.join(get_args(Precision))}; exact first"
    )
    parser.add_argument("--effort", default="quick")
    parser.add_argument("--calibrate", type=json.loads, default={}, help="other settings of [calibrate], as JSON")
    parser.add_argument("--sampler", type=json.loads, default={}, help="settings of [sampler], as JSON")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seeds", type=int, default=1, help="calibration seeds")
    parser.add_argument("--held-out", type=int, default=64, help="held-out seeds")
    parser.add_argument("--work", type=Path, help="keep checkpoints and rows here")
    return parser


if __name__ == "__main__":
    given = arguments().parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        main(given, given.work or Path(scratch))
