"""One of the trained policies in integers: calibrated, exported, executed and judged on this machine, then measured in millimetres.

python examples/diffusion_policy/quantize.py unet
python examples/diffusion_policy/quantize.py dit
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
from acting import Sampler, acting, of_bundle, of_diffusers, of_simulation
from policies import POLICIES, STEPS, scheduler_of, trained
from safetensors.torch import load_file
from task import HORIZON, UNIT, demonstrations, reached, starts
from torch import Tensor, nn

import dq_toolchain as dq

SEEDS = 64
TABLES = 500
"""Start positions for every program, where one in a hundred has to show."""
NORMAL = 1.96
"""Of a 95 % interval."""


def calibrated(name: str, network: nn.Module, out: Path, **settings: Any) -> dq.Calibration:
    """W8A8 with a step group per denoising step, on observations of demonstrations that the training did not see."""
    seen, _ = demonstrations(64, seed=1000)
    rows = torch.randperm(len(seen), generator=torch.Generator().manual_seed(0))[:512]
    return dq.calibrate(
        network,
        scheduler=scheduler_of(name),
        sample_shape=(2, HORIZON),
        conditioning={"observation": seen[rows]},
        out=out,
        **{
            "steps": STEPS[name],
            "step_groups": STEPS[name],
            "recipe": {"reference": {"seeds": SEEDS}},
            **settings,
        },
    )


def millimetres(latents: Tensor, wanted: Tensor) -> dict[str, Any]:
    """Distance between two runs of the sampler, (N+1, S, 2, HORIZON) each: root mean squares.

    ``per_denoising_step``: after each, over seeds and horizon. ``per_control_step``: of the finished chunk, over seeds, at each
    step of the horizon. ``median_chunk``, ``worst_chunk``: of the seeds, each over its horizon.
    """
    squared = ((latents - wanted).double() * UNIT).square().sum(2)  # (N+1, S, HORIZON)
    return {
        "per_denoising_step": squared[1:].mean((1, 2)).sqrt().tolist(),
        "per_control_step": squared[-1].mean(0).sqrt().tolist(),
        "median_chunk": float(squared[-1].mean(1).sqrt().median()),
        "worst_chunk": float(squared[-1].mean(1).sqrt().max()),
    }


def solved(sampler: Sampler, tables: int) -> Tensor:
    """Which of so many start positions a sampler solves, (tables,) bool, from the same noise as every other."""
    return reached(acting(sampler, tables), starts(tables, seed=2000))


def difference(ours: Tensor, wanted: Tensor) -> dict[str, Any]:
    """Success minus FP32's on the same start positions, both (N,) bool, in percent, with its 95 % interval.

    Positions are pairs, and those that only one of the two solves count. Half a position more in each of the four outcomes keeps
    the interval honest where these are few (Agresti and Min 2005, "Simple improved confidence intervals for comparing matched
    proportions").
    """
    gained, lost = int((ours & ~wanted).sum()), int((wanted & ~ours).sum())
    more, less, count = gained + 0.5, lost + 0.5, len(wanted) + 2
    middle = (more - less) / count
    half = NORMAL * math.sqrt(more + less - (more - less) ** 2 / count) / count
    return {
        "solved": int(ours.sum()),
        "gained": gained,
        "lost": lost,
        "percent": 100 * (gained - lost) / len(wanted),
        "low": 100 * (middle - half),
        "high": 100 * (middle + half),
    }


def measured(name: str, out: Path, tables: int) -> dict[str, Any]:
    """The whole chain for one policy, and its figures."""
    network = trained(name)
    calibration = calibrated(name, network, out)
    figures: dict[str, Any] = {"policy": name, "denoising_steps": STEPS[name]}
    bundles = []
    for target in ("executorch", "tensorrt"):
        bundle = dq.export(calibration, target, step_groups_as="input")
        report = dq.run(bundle, threads=1)
        verdict = dq.validate(report)
        latents = load_file(report.path.with_suffix(".safetensors"))["latents"]
        psnr = torch.tensor(report.data["final"]["psnr"]).median()
        figures[target] = {
            "outcome": verdict.outcome,
            "psnr_db": float(psnr),
            **millimetres(latents, calibration.reference.fp32_latents),
        }
        bundles.append(bundle.folder)
    samplers = {
        "FP32": of_diffusers(network, scheduler_of(name), STEPS[name]),
        "simulation": of_simulation(calibration.artifact),
    }
    samplers |= {folder.name: of_bundle(folder) for folder in bundles}
    played = {who: solved(sampler, tables) for who, sampler in samplers.items()}
    wanted = played.pop("FP32")
    found = {who: difference(those, wanted) for who, those in played.items()}
    figures[f"solved_of_{tables}"] = {"FP32": int(wanted.sum()), **found}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", choices=tuple(POLICIES))
    parser.add_argument("--out", type=Path, default=None, help="default: dq-out/POLICY")
    parser.add_argument("--starts", type=int, default=TABLES, help="start positions of the task")
    arguments = parser.parse_args()
    out = arguments.out or Path("dq-out") / arguments.policy
    print(json.dumps(measured(arguments.policy, out, arguments.starts), indent=1))


if __name__ == "__main__":
    main()
