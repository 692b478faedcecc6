"""One of the trained policies in integers: calibrated, exported, executed and judged on this machine, then measured in millimetres.

python examples/diffusion_policy/quantize.py unet
python examples/diffusion_policy/quantize.py dit --dq-run build/dq-run      # and times of the C++ program
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

import torch
from acting import acting, of_bundle, of_diffusers, of_simulation
from policies import POLICIES, STEPS, scheduler_of, trained
from safetensors.torch import load_file
from task import HORIZON, UNIT, demonstrations, reached, starts
from torch import Tensor, nn

import dq_toolchain as dq
from dq_toolchain.backends.common.call import Call
from dq_toolchain.backends.common.sealing import seal_bundle
from dq_toolchain.backends.executorch.fp32 import lower_fp32
from dq_toolchain.toolchain.formats.reference import FILE as REFERENCE

SEEDS, TABLES = 64, 100


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
        steps=STEPS[name],
        step_groups=STEPS[name],
        **{"recipe": {"reference": {"seeds": SEEDS}}, **settings},
    )


def millimetres(latents: Tensor, wanted: Tensor) -> dict[str, list[float]]:
    """Distance between two runs of the sampler, (N+1, S, 2, HORIZON) each, root mean square over the S seeds.

    ``per_denoising_step``: after each, over the horizon. ``per_control_step``: of the finished chunk, at each step of the horizon.
    """
    squared = ((latents - wanted).double() * UNIT).square().sum(2)  # (N+1, S, HORIZON)
    return {
        "per_denoising_step": squared[1:].mean((1, 2)).sqrt().tolist(),
        "per_control_step": squared[-1].mean(0).sqrt().tolist(),
    }


def success(name: str, network: nn.Module, calibration: dq.Calibration, bundles: list[Path]) -> dict[str, int]:
    """How many of TABLES start positions are solved."""
    samplers = {
        "FP32": of_diffusers(network, scheduler_of(name), STEPS[name]),
        "simulation": of_simulation(calibration.artifact),
        **{folder.name: of_bundle(folder) for folder in bundles},
    }
    tables = starts(TABLES, seed=2000)
    return {who: int(reached(acting(sampler, TABLES), tables).sum()) for who, sampler in samplers.items()}


def float_bundle(network: nn.Module, calibration: dq.Calibration, folder: Path) -> None:
    """The FP32 program in a bundle, so that the program for devices can time it. It holds no integers: it is not for ``validate``."""
    folder.mkdir(parents=True, exist_ok=True)
    reference = calibration.reference
    call = Call(
        reference.start[:1],
        torch.tensor([calibration.artifact.table.timesteps[0]]),
        dict(reference.conditioning.select(slice(1)).cond),
    )
    (folder / "model.pte").write_bytes(lower_fp32(network, call))
    reference.save(folder / REFERENCE)
    seal_bundle(
        folder,
        calibration.artifact,
        call,
        target="executorch",
        form="static",
        program="model.pte",
        methods=("forward",),
        operations=(),
        limits={},
        libraries=("executorch",),
    )


def chunk_ms(program: Path, bundles: dict[str, Path], out: Path, rounds: int = 5) -> dict[str, float]:
    """Milliseconds of one action chunk in the C++ program on one core: the smallest of several runs, which take turns."""
    found: dict[str, float] = {}
    for _ in range(rounds):
        for name, folder in bundles.items():
            command = [str(program), "--bundle", str(folder), "--report", str(out / name), "--teacher-forced", "off"]
            subprocess.run(["taskset", "-c", "0", *command], check=True, capture_output=True)
            steps = json.loads((out / name / "report.json").read_text())["step_ms"]
            found[name] = min(found.get(name, float("inf")), sum(steps))
    return found


def measured(name: str, out: Path, program: Path | None = None) -> dict[str, Any]:
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
    figures["solved"] = success(name, network, calibration, bundles)
    if program is not None:
        float_bundle(network, calibration, out / "fp32")
        figures["chunk_ms"] = chunk_ms(program, {"fp32": out / "fp32", "w8a8": bundles[0]}, out / "times")
        figures["bytes"] = {n: (f / "model.pte").stat().st_size for n, f in (("fp32", out / "fp32"), ("w8a8", bundles[0]))}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", choices=tuple(POLICIES))
    parser.add_argument("--out", type=Path, default=None, help="default: dq-out/POLICY")
    parser.add_argument("--dq-run", type=Path, default=None, help="the C++ program of runtime_samples/executorch")
    arguments = parser.parse_args()
    out = arguments.out or Path("dq-out") / arguments.policy
    print(json.dumps(measured(arguments.policy, out, arguments.dq_run), indent=1))


if __name__ == "__main__":
    main()
