"""Whether one method's lead in a comparison stands: paired bootstrap over the held-out seeds of one calibration seed.

    python -m benchmarks.certainty dq-out/compare --model models/cifar10 --setting ddim100-w4a8 --method accuquant [--seed 0]

Prints, for every other method, the difference to it in median PSNR and in Fréchet distance to FP32, each with the
interval in which 95 % of the resampled sets of held-out seeds leave it. Both methods are always judged on the same set.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from dq_toolchain.calibrate.compare.cells import load_samples
from dq_toolchain.toolchain.features import FeatureExtractor, extractor_for, frechet_distance
from dq_toolchain.toolchain.files import read_tensors
from dq_toolchain.toolchain.metrics import psnr

SETS = 200
LEVELS = torch.tensor([0.025, 0.975])


class Resampled:
    """A method's figures on every resampled set of held-out seeds, (SETS,) each, and on the set itself."""

    def __init__(self, samples: Tensor, fp32: Tensor, extractor: FeatureExtractor, sets: list[Tensor]) -> None:
        values, found, wanted = psnr(samples, fp32), extractor.features(samples), extractor.features(fp32)
        whole = torch.arange(len(samples))
        figures = [(float(values[i].median()), frechet_distance(found[i], wanted[i])) for i in (whole, *sets)]
        (self.psnr, self.frechet), self.lowest = figures[0], values.sort()[0][:3].tolist()
        self.psnrs, self.frechets = torch.tensor(figures[1:], dtype=torch.float64).unbind(1)


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


def main(args: argparse.Namespace) -> None:
    cells = sorted(args.folder.glob(f"cells/{args.setting}-*-s{args.seed}/"))
    names = [cell.name.removeprefix(f"{args.setting}-").removesuffix(f"-s{args.seed}") for cell in cells]
    samples = {name: load_samples(cell)["samples"] for name, cell in zip(names, cells, strict=True)}
    if args.method not in samples:
        raise SystemExit(f"--method: got {args.method!r}, there are {', '.join(samples)}")
    steps = args.setting.split("-")[0].lstrip("abcdefghijklmnopqrstuvwxyz")
    fp32 = fp32_samples(args.folder, steps, len(samples[args.method]))
    generator = torch.Generator().manual_seed(0)
    sets = [torch.randint(0, len(fp32), (len(fp32),), generator=generator) for _ in range(SETS)]
    extractor = extractor_for(fp32, args.model)
    found = {name: Resampled(x, fp32, extractor, sets) for name, x in samples.items()}
    chosen = found[args.method]
    table = Table("method", "PSNR", f"{args.method} is higher by", "Fréchet", f"{args.method} is lower by", "worst three (dB)")
    for name, one in sorted(found.items(), key=lambda item: -item[1].psnr):
        other = name != args.method
        table.add_row(
            name, f"{one.psnr:.2f}", difference(chosen.psnrs, one.psnrs, chosen.psnr - one.psnr, ".2f") if other else "",
            f"{one.frechet:.4f}", difference(one.frechets, chosen.frechets, one.frechet - chosen.frechet, ".4f") if other else "",
            ", ".join(f"{value:.1f}" for value in one.lowest),
        )  # fmt: skip
    Console(width=160).print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what compare wrote, such as dq-out/compare")
    parser.add_argument("--model", type=Path, help="diffusers folder; default: the embedded model")
    parser.add_argument("--setting", required=True, help="such as ddim100-w4a8")
    parser.add_argument("--method", default="accuquant")
    parser.add_argument("--seed", type=int, default=0, help="calibration seed")
    main(parser.parse_args())
