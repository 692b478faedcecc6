"""Whether one method's lead in a comparison stands: paired bootstrap over the held-out seeds.

    python -m benchmarks.certainty dq-out/compare --model models/cifar10 --setting ddim100-w4a8 --method accuquant [--seed 0]

Prints, for every other method, the difference to it in median PSNR and in Fréchet distance to FP32, each with the
interval in which 95 % of the resampled sets of held-out seeds leave it. Both methods are always judged on the same sets;
figures are means over the calibration seeds that both were run with, or those of ``--seed`` alone.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from dq_toolchain.calibrate.compare.cells import load_samples
from dq_toolchain.toolchain.disk.files import read_tensors
from dq_toolchain.toolchain.metrics import psnr
from dq_toolchain.toolchain.verdict.features import FeatureExtractor, extractor_for, frechet_distance

SETS = 200
LEVELS = torch.tensor([0.025, 0.975])


@dataclass(frozen=True)
class Resampled:
    """A method's figures on every resampled set of held-out seeds, (SETS,) each, on the set itself, and every sample's PSNR."""

    psnr: float
    frechet: float
    psnrs: Tensor
    frechets: Tensor
    values: Tensor

    @classmethod
    def of(cls, samples: Tensor, fp32: Tensor, extractor: FeatureExtractor, sets: list[Tensor]) -> Resampled:
        values, found, wanted = psnr(samples, fp32), extractor.features(samples), extractor.features(fp32)
        whole = torch.arange(len(samples))
        figures = [(float(values[i].median()), frechet_distance(found[i], wanted[i])) for i in (whole, *sets)]
        psnrs, frechets = torch.tensor(figures[1:], dtype=torch.float64).unbind(1)
        return cls(*figures[0], psnrs, frechets, values)

    @classmethod
    def mean(cls, seeds: Sequence[Resampled]) -> Resampled:
        """Over calibration seeds, whose sets are the same; all their samples."""
        return cls(
            statistics.fmean(one.psnr for one in seeds), statistics.fmean(one.frechet for one in seeds),
            torch.stack([one.psnrs for one in seeds]).mean(0), torch.stack([one.frechets for one in seeds]).mean(0),
            torch.cat([one.values for one in seeds]),
        )  # fmt: skip


def fp32_samples(folder: Path, calls: str, count: int) -> Tensor:
    """(S, C, H, W): the last latents of the comparison's own FP32 rollouts."""
    for path in sorted((folder / "held_out").glob(f"fp32-{calls}-*.safetensors")):
        latents = read_tensors(path, "run `dq-toolchain compare` again")["latents"][-1]
        if len(latents) == count:
            return latents
    raise SystemExit(f"no FP32 rollout of {calls} calls and {count} held-out seeds in {folder / 'held_out'}")


def difference(one: Tensor, other: Tensor, whole: float, form: str) -> str:
    low, high = (one - other).quantile(LEVELS.double()).tolist()
    return f"{whole:+{form}} ({low:+{form}} to {high:+{form}})"


def cells(folder: Path, setting: str, seed: int | None) -> dict[str, dict[int, Tensor]]:
    """Method -> calibration seed -> samples of the finished cells."""
    found: dict[str, dict[int, Tensor]] = {}
    for cell in sorted(folder.glob(f"cells/{setting}-*-s{'*' if seed is None else seed}/")):
        method, _, own = cell.name.removeprefix(f"{setting}-").rpartition("-s")
        found.setdefault(method, {})[int(own)] = load_samples(cell)["samples"]
    return found


def main(args: argparse.Namespace) -> None:
    samples = cells(args.folder, args.setting, args.seed)
    if args.method not in samples:
        raise SystemExit(f"--method: got {args.method!r}, there are {', '.join(samples)}")
    steps = args.setting.split("-")[0].lstrip("abcdefghijklmnopqrstuvwxyz")
    fp32 = fp32_samples(args.folder, steps, len(next(iter(samples[args.method].values()))))
    generator = torch.Generator().manual_seed(0)
    sets = [torch.randint(0, len(fp32), (len(fp32),), generator=generator) for _ in range(SETS)]
    extractor = extractor_for(fp32, args.model)
    found = {
        name: {seed: Resampled.of(x, fp32, extractor, sets) for seed, x in seeds.items()}
        for name, seeds in samples.items()
    }
    rows = []
    for name, seeds in found.items():
        shared = sorted(seeds.keys() & found[args.method].keys())
        if shared:
            chosen, one = (Resampled.mean([found[each][seed] for seed in shared]) for each in (args.method, name))
            rows.append((name, shared, chosen, one))
    table = Table(
        "method",
        "seeds",
        "PSNR",
        f"{args.method} is higher by",
        "Fréchet",
        f"{args.method} is lower by",
        "worst three (dB)",
    )
    for name, shared, chosen, one in sorted(rows, key=lambda each: -each[3].psnr):
        other = name != args.method
        table.add_row(
            name, ", ".join(map(str, shared)),
            f"{one.psnr:.2f}", difference(chosen.psnrs, one.psnrs, chosen.psnr - one.psnr, ".2f") if other else "",
            f"{one.frechet:.4f}", difference(one.frechets, chosen.frechets, one.frechet - chosen.frechet, ".4f") if other else "",
            ", ".join(f"{value:.1f}" for value in one.values.sort()[0][:3].tolist()),
        )  # fmt: skip
    Console(width=160).print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what compare wrote, such as dq-out/compare")
    parser.add_argument("--model", type=Path, help="diffusers folder; default: the embedded model")
    parser.add_argument("--setting", required=True, help="such as ddim100-w4a8")
    parser.add_argument("--method", default="accuquant")
    parser.add_argument("--seed", type=int, help="calibration seed; default: the mean over all")
    main(parser.parse_args())
