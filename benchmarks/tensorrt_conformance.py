"""TensorRT graphs of the embedded model, operation by operation against the integer simulation, and their sizes.

    python -m benchmarks.tensorrt_conformance [--seeds 8] [--json tensorrt.json]

Every operation gets the simulation's own input. "output_error" is the largest among products whose integers are all equal.
Where NVIDIA's compiler is installed, every form is compiled too, and sites in INT8 are counted.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.embedded import artifact_of, inputs_of
from dq_toolchain.backends.common.call import example_call
from dq_toolchain.backends.common.onnx.shared_weights import FILE
from dq_toolchain.backends.common.ratios import ratio_table
from dq_toolchain.backends.tensorrt.lowering import write_graphs
from dq_toolchain.backends.tensorrt.proof.nvidia import check_build, is_installed
from dq_toolchain.backends.tensorrt.runtime.conformance import Comparison, compare
from dq_toolchain.backends.tensorrt.settings import Settings
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork

FORMS: dict[str, dict[str, Any]] = {
    "static, fp32 (default)": {}, "static, fp16": {"jetpack": 7},
    "ratio, fp32": {"step_groups_as": "input"}, "ratio, fp16": {"step_groups_as": "input", "jetpack": 7},
}  # fmt: skip


def measure(artifact: Artifact, reference: Reference, settings: dict[str, Any], seeds: int) -> dict[str, Any]:
    """One form: worst and total over the first step of every step group and all seeds."""
    section = Settings(**settings)
    ranges = ratio_table(artifact, "--step-groups-as input") if section.step_groups_as == "input" else None
    call = example_call(artifact, reference, None if ranges is None else ranges[:1])
    simulated, found = SimulatedNetwork(artifact), list[Comparison]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written = write_graphs(artifact, call, section, folder, lambda _: None)
        graphs = [folder / f"{method}.onnx" for method in written.methods]
        sizes = {
            "weight_bytes": (folder / FILE).stat().st_size,
            "graph_bytes": [path.stat().st_size for path in graphs],
        }
        compiled = [check_build(path, written.placements) for path in graphs] if is_installed() else []
        for group, steps in enumerate(artifact.step_groups):
            for seed in range(seeds):
                inputs = inputs_of(artifact, reference, steps[0], seed, ranges)
                found.append(compare(graphs[group % len(graphs)], artifact, simulated, steps[0], inputs))
    places = sum(one.places for one in found)
    return {
        "integers_different": sum(one.different for one in found) / places, "places": places,
        "largest": max(one.largest for one in found), "output_error": max(one.output_error for one in found),
        "products": sum(one.products for one in found), "compared": sum(one.compared for one in found), **sizes,
        "int8": [f"{one.int8}/{one.promised}" for one in compiled], "layers": [one.layers for one in compiled],
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for bits, step_groups in ((8, 5), (8, 1), (4, 5)):
        made = artifact_of(bits, step_groups, arguments.seeds)
        for label, settings in FORMS.items():
            if step_groups == 1 and settings:
                continue
            row = {"form": label, "weight_bits": bits, "step_groups": step_groups}
            rows.append(row | measure(*made, settings, arguments.seeds))
            print(rows[-1], flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
