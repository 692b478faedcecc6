"""Snapdragon's NPU at Stable Diffusion 1.5's width, random weights: graphs, compiled context, seconds, peak memory, bytes.

    python -m benchmarks.qnn_size --part whole --scale 8
    python -m benchmarks.qnn_size --part attention4096 [--step-groups 1] [--weight-bits 8] [--soc SM8750] [--graphs-only]

--part whole is the UNet, with all widths divided by --scale; the others are small networks of full width around what is hard to
compile: res has residual blocks of 640 channels at 64x64, attention1024 and attention4096 transformers over so many tokens. Form
a16, attention products in integers. Writes, lints and audits the graphs as `export` does and compiles them into one context with
Qualcomm's compiler, in a temporary folder. The compiler is a process of its own; both peaks are given.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.npu import npu_artifact, part
from benchmarks.sd15 import parameters
from dq_toolchain.backends.common.machine import peak_memory
from dq_toolchain.backends.common.onnx.shared_weights import FILE
from dq_toolchain.backends.qnn.htp.contexts import write_contexts
from dq_toolchain.backends.qnn.lowering import write_graphs

PARTS = ("whole", "res", "attention1024", "attention4096")


def say(text: str) -> None:
    print(text, flush=True)


def measure(name: str, scale: float, step_groups: int, weight_bits: int, soc: str | None) -> dict[str, Any]:
    artifact, call = npu_artifact(part(name, scale), step_groups, weight_bits)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        model = folder / "model"
        model.mkdir()
        written = write_graphs(artifact, call, model, say)
        graphs = [model / f"{method}.onnx" for method in written.methods]
        found: dict[str, Any] = {
            "part": name, "parameters": parameters(artifact), "products": len(written.products), "graphs": len(graphs),
            "seconds": round(time.perf_counter() - begin, 1), "peak_gib": round(peak_memory() / 2**30, 2),
            "weight_bytes": (model / FILE).stat().st_size, "graph_bytes": [graph.stat().st_size for graph in graphs],
        }  # fmt: skip
        if soc is not None:
            found["context"] = write_contexts(graphs, folder / soc, soc, say).to_json()
            children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
            found["compiler_peak_gib"] = round(children / 2**30, 2)
        return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, default="whole")
    parser.add_argument("--scale", type=float, default=8.0)
    parser.add_argument("--step-groups", type=int, default=1)
    parser.add_argument("--weight-bits", type=int, choices=(4, 8), default=8)
    parser.add_argument("--soc", default="SM8750")
    parser.add_argument("--graphs-only", action="store_true", help="without Qualcomm's compiler")
    given = parser.parse_args()
    chip = None if given.graphs_only else given.soc
    print(json.dumps(measure(given.part, given.scale, given.step_groups, given.weight_bits, chip), indent=1))
