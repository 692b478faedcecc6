"""Core ML packages of the embedded model, operation by operation against the integer simulation, and their sizes.

    python -m benchmarks.coreml_conformance [--seeds 8] [--json coreml.json]

Teacher-forced: every quantize operation is compared with the simulation's integers and then given them. Ranges only:
fitting changes no operation. Sizes are of packages with one and with five step groups.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.embedded import artifact_of, inputs_of
from dq_toolchain.backends.common.call import example_call
from dq_toolchain.backends.common.qdq.conformance import Comparison, compare
from dq_toolchain.backends.common.qdq.plan import plan_of
from dq_toolchain.backends.coreml.interpreter.program import load
from dq_toolchain.backends.coreml.lowering import ratios, write_program
from dq_toolchain.backends.coreml.package import MODEL, WEIGHT_FILE, packages_in
from dq_toolchain.backends.coreml.runtime.forced import forced
from dq_toolchain.backends.coreml.settings import Settings
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork

PACKAGES: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32"},
    "fp16 (default)": {},
    "fp16, run-time scales": {"step_groups_as": "input"},
    "fp16, Neural Engine layout": {"layout": "neural-engine"},
    "fp16, tables": {"lut": True},
}


def measure(artifact: Artifact, reference: Reference, settings: dict[str, Any], seeds: int) -> dict[str, Any]:
    """One package: worst and total over the first step of every step group and all seeds."""
    section = Settings(**settings)
    plan = plan_of(artifact, reference, section, print, ratios)
    ranges = plan.ranges
    with tempfile.TemporaryDirectory() as folder:
        call = example_call(artifact, reference, None if ranges is None else ranges[:1])
        written = write_program(artifact, call, section, plan.expected, Path(folder), lambda _: None)
        package = Path(folder) / written.program
        sizes = {
            "weight_bytes": (package / WEIGHT_FILE).stat().st_size,
            "program_bytes": (package / MODEL).stat().st_size,
        }
        programs = load(*packages_in(package))
    simulated, found, methods = SimulatedNetwork(artifact), list[Comparison](), list(written.sites)
    for group, steps in enumerate(artifact.step_groups):
        method, k = methods[group if len(methods) > 1 else 0], steps[0]
        for seed in range(seeds):
            inputs = inputs_of(artifact, reference, k, seed, ranges)
            found.append(compare(forced(programs[method]), written.sites[method], artifact, simulated, k, inputs))
    places = sum(one.places for one in found)
    return {
        "integers_different": sum(one.different for one in found) / places, "places": places,
        "largest": max(one.largest for one in found), "output_error": max(one.output_error for one in found), **sizes,
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for bits in (8, 4):
        for step_groups in (5, 1):
            made = artifact_of(bits, step_groups, arguments.seeds)
            for label, settings in PACKAGES.items():
                if (bits == 8 and "lut" in settings) or (step_groups == 1 and settings):
                    continue
                row = {"package": label, "weight_bits": bits, "step_groups": step_groups}
                rows.append(row | measure(*made, settings, arguments.seeds))
                print(rows[-1], flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
