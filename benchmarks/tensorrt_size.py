"""TensorRT export of Stable Diffusion 1.5's topology with random weights: seconds, peak memory, bytes.

    python -m benchmarks.tensorrt_size [--scale 1] [--step-groups 4] [--weight-bits 8] [--precision fp16] [--form input]
                                       [--execute] [--check-build]

--scale 1 is the full size, 860 M parameters; 8 divides all widths by eight, 0.5 doubles them. Writes, checks and audits the
graphs as the command does, in a temporary folder; --execute runs the first one in ONNX Runtime, --check-build compiles it
with NVIDIA's compiler. Peak memory is the process's (the compiler has its own), so run one size per process.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.sd15 import example, parameters, random_artifact
from dq_toolchain.backends.common.machine import peak_memory
from dq_toolchain.backends.common.onnx.session import Sessions
from dq_toolchain.backends.common.onnx.shared_weights import FILE
from dq_toolchain.backends.tensorrt.lowering import write_graphs
from dq_toolchain.backends.tensorrt.proof.nvidia import check_build
from dq_toolchain.backends.tensorrt.settings import Settings


def peak() -> float:
    """Of this process so far, GiB."""
    return round(peak_memory() / 2**30, 2)


def measure(scale: float, step_groups: int, weight_bits: int, section: Settings, execute: bool) -> dict[str, Any]:
    artifact = random_artifact(scale, step_groups, weight_bits)
    call = example(scale)
    if section.step_groups_as == "input":
        call = call.with_ranges(torch.ones(1, len(artifact.sites)))
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written = write_graphs(artifact, call, section, folder, lambda text: print(text, flush=True))
        graphs = [folder / f"{method}.onnx" for method in written.methods]
        found = {
            "parameters": parameters(artifact), "layers": len(artifact.layers), "graphs": len(graphs),
            "seconds": round(time.perf_counter() - begin, 1),
            "peak_gib": peak(),
            "weight_bytes": (folder / FILE).stat().st_size, "graph_bytes": [path.stat().st_size for path in graphs],
            "int8": sum(placement.int8 for placement in written.placements),
        }  # fmt: skip
        if execute:
            begin = time.perf_counter()
            out = Sessions(folder)(written.methods[0], call.named)
            found["executed"] = {
                "finite": bool(out.isfinite().all()),
                "seconds": round(time.perf_counter() - begin, 1),
                "peak_gib": peak(),
            }
        if section.check_build:
            begin = time.perf_counter()
            found["compiled"] = check_build(graphs[0], written.placements).to_json()
            found["compiler_seconds"] = round(time.perf_counter() - begin, 1)
        return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--step-groups", type=int, default=4)
    parser.add_argument("--weight-bits", type=int, choices=(4, 8), default=8)
    parser.add_argument("--precision", choices=("fp32", "fp16"), default="fp32")
    parser.add_argument("--form", choices=("methods", "input"), default="methods", help="`export --step-groups`")
    parser.add_argument("--execute", action="store_true")
    parser.add_argument("--check-build", action="store_true")
    given = parser.parse_args()
    settings = Settings(step_groups_as=given.form, precision=given.precision, check_build=given.check_build)
    print(json.dumps(measure(given.scale, given.step_groups, given.weight_bits, settings, given.execute), indent=1))
