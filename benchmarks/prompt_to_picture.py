"""A prompt in, a picture out, on every target: the same seed by each bundle, against diffusers in FP32.

    python -m benchmarks.prompt_to_picture [--model models/scenes] [--bits W8A8,W4A8] [--targets executorch,coreml] [--prompts 8]
                                           [--seeds 10] [--folder WORK] [--json rows.json]

Calibrates (``--effort quick``, --steps, --guidance), exports, runs and validates each target on this machine, and draws the same
prompts with the same seeds by FP32, the integer simulation and each bundle. PSNR and SSIM are of finished pictures in pixels. With
--folder a run that was killed goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from torch import Tensor

import dq_toolchain as dq
from dq_toolchain import backends
from dq_toolchain.calibrate.data.prompts import read_prompts
from dq_toolchain.toolchain.metrics import psnr, ssim

Row = dict[str, Any]
FOR_NPU: dict[str, dict[str, Any]] = {"qnn": {"activation_bits": 16, "outputs": "range", "step_vectors": True}}
"""Settings of calibrate that a target's own kind of artifact needs."""


def artifact(args: argparse.Namespace, bits: str, target: str, folder: Path) -> Path:
    """The calibration for a target, made once for all that take the same."""
    weights = int(bits[1 : bits.index("A")])
    more = FOR_NPU.get(target, {})
    out = folder / (f"W{weights}A16" if more else bits)
    if not (out / "calibration" / "calibration.json").exists():
        dq.calibrate(
            args.model, out=out, steps=args.steps, guidance=args.guidance, prompts=args.model / "prompts.txt", weight_bits=weights,
            effort="quick", recipe={"reference": {"seeds": max(args.seeds, 10)}}, **more,
        )  # fmt: skip
    return out / "calibration"


def pictures(source: Path, prompts: list[str], **settings: Any) -> list[Tensor]:
    """(3, H, W) uint8 of each prompt, with the seeds 0, 1, ..."""
    return [dq.generate(source, prompt, seed=seed, **settings).pixels for seed, prompt in enumerate(prompts)]


def figures(ours: list[Tensor], theirs: list[Tensor]) -> Row:
    """Median and least over the pictures."""
    pairs = [(a.float()[None] / 127.5 - 1, b.float()[None] / 127.5 - 1) for a, b in zip(ours, theirs, strict=True)]
    decibels, likeness = ([float(metric(a, b)) for a, b in pairs] for metric in (psnr, ssim))
    return {"psnr": statistics.median(decibels), "least": min(decibels), "ssim": statistics.median(likeness)}


def measure(args: argparse.Namespace, folder: Path) -> Iterator[Row]:
    prompts = read_prompts(args.model / "prompts.txt")[: args.prompts]
    fp32 = pictures(args.model, prompts, steps=args.steps, guidance=args.guidance)
    for bits in args.bits.split(","):
        for target in args.targets.split(","):
            calibration = artifact(args, bits, target, folder)
            bundle = calibration.parent / target
            if not (bundle / "bundle.json").exists():
                dq.export(calibration, target)
            if not (bundle / "report.json").exists():
                dq.run(bundle, seeds=args.seeds)
            verdict = dq.validate(bundle / "report.json")
            drawn = pictures(bundle, prompts)
            simulated = pictures(calibration, prompts)
            assert verdict.chain is not None
            yield {
                "bits": calibration.parent.name, "target": target, "verdict": verdict.outcome, **figures(drawn, fp32),
                "to_simulation": figures(drawn, simulated)["psnr"],
                "chain": {stage.name: statistics.fmean(stage.psnr) for stage in verdict.chain.stages},
                "bytes": sum(file.stat().st_size for file in bundle.rglob("*") if not file.name.startswith(("report", "pictures"))),
            }  # fmt: skip


def show(rows: list[Row]) -> None:
    table = Table(
        "bits", "target", "verdict", "PSNR", "least", "SSIM", "to simulation", "decoder", "+ network", "+ text", "MB"
    )
    for row in rows:
        numbers = [f"{row[key]:.1f}" for key in ("psnr", "least")] + [
            f"{row['ssim']:.3f}",
            f"{row['to_simulation']:.1f}",
        ]
        stages = [f"{row['chain'].get(name, float('nan')):.1f}" for name in ("decoder", "network", "prompt")]
        table.add_row(row["bits"], row["target"], row["verdict"], *numbers, *stages, f"{row['bytes'] / 1e6:.2f}")
    Console(width=140).print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/scenes"))
    parser.add_argument("--bits", default="W8A8,W4A8")
    parser.add_argument("--targets", default=",".join(backends.names()))
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--prompts", type=int, default=8, help="of the model's prompts.txt")
    parser.add_argument("--seeds", type=int, default=10, help="held-out seeds that each bundle runs")
    parser.add_argument("--folder", type=Path, help="keep everything here")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = []
        for row in measure(given, given.folder or Path(temporary)):
            found.append(row)
            print(json.dumps(row), flush=True)
            if given.json:
                given.json.write_text(json.dumps(found, indent=1) + "\n")
    show(found)
