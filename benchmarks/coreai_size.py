"""How long, how much memory and how many bytes an .aimodel of Stable Diffusion 1.5's size takes.

    python -m benchmarks.coreai_size [--scale 1] [--step-groups 5] [--weight-bits 8] [--execute]

It is converted, audited and, with --execute, executed once per step group, as ``export`` does.

With several step groups the file of one is written too, in a process of its own, for the ratio of their sizes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.sd15 import example, parameters, random_artifact
from dq_toolchain.backends.common.machine import peak_memory
from dq_toolchain.backends.common.qdq.audit import Expected
from dq_toolchain.backends.common.qdq.qparams import QParams
from dq_toolchain.backends.common.schedule import Schedule
from dq_toolchain.backends.coreai.asset import BYTECODE
from dq_toolchain.backends.coreai.lowering import write_program
from dq_toolchain.backends.coreai.runtime.device import open_asset
from dq_toolchain.backends.coreai.settings import Settings


def measure(scale: int, step_groups: int, weight_bits: int, execute: bool) -> dict[str, Any]:
    artifact = random_artifact(scale, step_groups, weight_bits)
    begin = time.perf_counter()

    def say(text: str) -> None:
        print(
            f"{time.perf_counter() - begin:6.1f} s {peak_memory() / 2**30:5.2f} GiB  {text}",
            file=sys.stderr,
            flush=True,
        )

    with tempfile.TemporaryDirectory() as folder:
        expected = Expected(QParams.of(artifact))
        written = write_program(artifact, example(scale), Settings(), expected, Path(folder), say)
        row: dict[str, Any] = {
            "parameters": parameters(artifact), "layers": len(artifact.layers), "functions": len(written.sites),
            "seconds": round(time.perf_counter() - begin, 1), "peak_gib": round(peak_memory() / 2**30, 2),
            "bytes": (Path(folder) / written.program / BYTECODE).stat().st_size,
        }  # fmt: skip
        if execute:
            schedule = Schedule(tuple(written.sites), range(step_groups), None)
            step, runtime = open_asset(Path(folder) / written.program, schedule)
            call = example(scale)
            for k in range(step_groups):
                say(f"executing step group {k}: {runtime.name}")
                assert torch.isfinite(step(k, call.sample + 1, call.timestep, call.conditioning)).all()
            row |= {"executed_by": runtime.name, "seconds_with_execution": round(time.perf_counter() - begin, 1)}
            row |= {"peak_gib_with_execution": round(peak_memory() / 2**30, 2)}
        return row


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, choices=(1, 2, 4, 8), default=1)
    parser.add_argument("--step-groups", type=int, default=5)
    parser.add_argument("--weight-bits", type=int, choices=(4, 8), default=8)
    parser.add_argument("--execute", action="store_true")
    arguments = parser.parse_args()
    row = measure(arguments.scale, arguments.step_groups, arguments.weight_bits, arguments.execute)
    if arguments.step_groups > 1:
        command = [
            sys.executable,
            "-m",
            "benchmarks.coreai_size",
            "--scale",
            str(arguments.scale),
            "--step-groups",
            "1",
        ]
        alone = subprocess.run(
            [*command, "--weight-bits", str(arguments.weight_bits)], stdout=subprocess.PIPE, check=True
        )
        row["of_one_step_group"] = row["bytes"] / json.loads(alone.stdout)["bytes"]
    print(json.dumps(row, indent=1))
