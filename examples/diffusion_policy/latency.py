"""Milliseconds of one action chunk in the C++ program of ``runtime_samples/executorch``, FP32 against W8A8, on one core.

python examples/diffusion_policy/latency.py unet dq-out/unet --dq-run build/dq-run      # after quantize.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from pathlib import Path
from typing import Any

import torch
from policies import POLICIES, trained
from torch import nn

from dq_toolchain.backends.common.call import example_call
from dq_toolchain.backends.common.sealing import seal_bundle
from dq_toolchain.backends.executorch.fp32 import lower_fp32
from dq_toolchain.toolchain.formats.artifact import Artifact, load_reference
from dq_toolchain.toolchain.formats.reference import FILE as REFERENCE

CORE = "0"


def float_bundle(network: nn.Module, calibration: Path, folder: Path) -> None:
    """The FP32 program in a bundle, so that the program for devices can time it. It holds no integers: not for ``validate``."""
    folder.mkdir(parents=True, exist_ok=True)
    artifact, reference = Artifact.load(calibration, network), load_reference(calibration)
    call = example_call(artifact, reference)
    (folder / "model.pte").write_bytes(lower_fp32(network, call))
    reference.save(folder / REFERENCE)
    seal_bundle(
        folder,
        artifact,
        call,
        target="executorch",
        form="static",
        program="model.pte",
        methods=("forward",),
        operations=(),
        limits={},
        libraries=("executorch",),
    )


def chunk_ms(program: Path, bundles: dict[str, Path], out: Path, rounds: int = 7) -> dict[str, dict[str, float]]:
    """Median and smallest of several runs, which take turns; of a run, the sum over denoising steps of each one's median."""
    found: dict[str, list[float]] = {name: [] for name in bundles}
    for _ in range(rounds):
        for name, folder in bundles.items():
            command = [str(program), "--bundle", str(folder), "--report", str(out / name), "--teacher-forced", "off"]
            subprocess.run(["taskset", "-c", CORE, *command], check=True, capture_output=True)
            found[name].append(sum(json.loads((out / name / "report.json").read_text())["step_ms"]))
    return {name: {"median": statistics.median(ms), "min": min(ms)} for name, ms in found.items()}


def measured(name: str, out: Path, program: Path) -> dict[str, Any]:
    with torch.no_grad():
        float_bundle(trained(name), out / "calibration", out / "fp32")
    bundles = {"fp32": out / "fp32", "w8a8": out / "executorch"}
    return {
        "policy": name,
        "bytes": {which: (folder / "model.pte").stat().st_size for which, folder in bundles.items()},
        "chunk_ms": chunk_ms(program, bundles, out / "times"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", choices=tuple(POLICIES))
    parser.add_argument("out", type=Path, help="what quantize.py wrote")
    parser.add_argument("--dq-run", type=Path, required=True, help="the C++ program")
    arguments = parser.parse_args()
    print(json.dumps(measured(arguments.policy, arguments.out, arguments.dq_run), indent=1))


if __name__ == "__main__":
    main()
