"""Core AI assets of the embedded model, executed by Apple's interpreter, against the integer simulation and against Core ML's.

    python -m benchmarks.coreai_conformance [--seeds 8] [--json coreai.json]

Teacher-forced: every quantize operation is compared with the simulation's integers, and what follows it is given them.
Ranges only: fitting changes no operation. The last rows compare two programs of the same artifact: the .aimodel executed by
Apple's interpreter and the .mlpackage executed by ours, the first independent check of the latter.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.embedded import artifact_of, inputs_of
from dq_toolchain.backends.common.call import example_call
from dq_toolchain.backends.common.qdq.conformance import Comparison, Forced, Given, compare
from dq_toolchain.backends.common.qdq.plan import Plan, plan_of
from dq_toolchain.backends.coreai import lowering as coreai
from dq_toolchain.backends.coreai.asset import BYTECODE
from dq_toolchain.backends.coreai.runtime.forced import forced as by_apple
from dq_toolchain.backends.coreai.settings import Settings
from dq_toolchain.backends.coreml import lowering as coreml
from dq_toolchain.backends.coreml.interpreter.program import load
from dq_toolchain.backends.coreml.package import packages_in
from dq_toolchain.backends.coreml.runtime.forced import forced as by_interpreter
from dq_toolchain.backends.coreml.settings import Settings as CoreMLSettings
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.metrics import relative_error
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork

ASSETS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32"},
    "fp16 (default)": {},
    "fp16, run-time scales": {"step_groups_as": "input"},
    "fp16, Neural Engine layout": {"layout": "neural-engine"},
    "fp16, tables": {"lut": True},
}
Answers = dict[int, tuple[dict[int, Tensor], Tensor]]
"""Number of a call -> integers by column of the artifact, and the output."""


class Recorded:
    """A ``Forced`` whose answers are kept."""

    def __init__(self, execute: Forced, sites: Mapping[str, int]) -> None:
        self.execute, self.sites = execute, sites

    def __call__(self, inputs: Mapping[str, Tensor], given: Given) -> tuple[Mapping[str, Tensor], Tensor]:
        computed, out = self.execute(inputs, given)
        self.last = {self.sites[name]: value.to(torch.float32).flatten() for name, value in computed.items()}, out
        return computed, out


def measure(
    artifact: Artifact, reference: Reference, plan: Plan, programs: Mapping[str, Forced], sites: Any, seeds: int
) -> tuple[dict[str, Any], Answers]:
    """One program: worst and total over the first step of every step group and all seeds."""
    simulated, found, methods = SimulatedNetwork(artifact), list[Comparison](), list(sites)
    answers: Answers = {}
    for group, steps in enumerate(artifact.step_groups):
        method, k = methods[group if len(methods) > 1 else 0], steps[0]
        recorded = Recorded(programs[method], sites[method])
        for seed in range(seeds):
            inputs = inputs_of(artifact, reference, k, seed, plan.ranges)
            found.append(compare(recorded, sites[method], artifact, simulated, k, inputs))
            answers[len(answers)] = recorded.last
    places = sum(one.places for one in found)
    return {
        "integers_different": sum(one.different for one in found) / places, "places": places,
        "largest": max(one.largest for one in found), "output_error": max(one.output_error for one in found),
    }, answers  # fmt: skip


def between(first: Answers, second: Answers) -> dict[str, Any]:
    """Two programs of one artifact, given the same integers."""
    different = places = largest = 0
    for call, (integers, _) in first.items():
        for column, value in integers.items():
            distance = (value - second[call][0][column]).abs()
            different, places = different + int((distance > 0).sum()), places + distance.numel()
            largest = max(largest, int(distance.max()))
    errors = [float(relative_error(second[call][1], out)) for call, (_, out) in first.items()]
    return {"integers_different": different / places, "places": places, "largest": largest, "output_error": max(errors)}


def of_core_ai(artifact: Artifact, reference: Reference, settings: dict[str, Any], seeds: int) -> Any:
    section = Settings(**settings)
    plan = plan_of(artifact, reference, section, print, coreai.scales)
    with tempfile.TemporaryDirectory() as folder:
        call = example_call(artifact, reference, None if plan.ranges is None else plan.ranges[:1])
        written = coreai.write_program(artifact, call, section, plan.expected, Path(folder), lambda _: None)
        asset = Path(folder) / written.program
        programs = {name: by_apple(asset, name) for name in written.sites}
        row, answers = measure(artifact, reference, plan, programs, written.sites, seeds)
        return row | {"bytes": (asset / BYTECODE).stat().st_size}, answers


def of_core_ml(artifact: Artifact, reference: Reference, settings: dict[str, Any], seeds: int) -> Any:
    section = CoreMLSettings(**settings)
    plan = plan_of(artifact, reference, section, print, coreml.ratios)
    with tempfile.TemporaryDirectory() as folder:
        call = example_call(artifact, reference)
        written = coreml.write_program(artifact, call, section, plan.expected, Path(folder), lambda _: None)
        loaded = load(*packages_in(Path(folder) / written.program))
        programs = {name: by_interpreter(loaded[name]) for name in written.sites}
        return measure(artifact, reference, plan, programs, written.sites, seeds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []

    def say(row: dict[str, Any]) -> None:
        rows.append(row)
        print(row, flush=True)

    for bits in (8, 4):
        made = artifact_of(bits, 5, arguments.seeds)
        for label, settings in ASSETS.items():
            if bits == 8 and "lut" in settings:
                continue
            row, answers = of_core_ai(*made, settings, arguments.seeds)
            say({"asset": label, "weight_bits": bits} | row)
            if settings in ({"precision": "fp32"}, {}):
                _, others = of_core_ml(*made, settings, arguments.seeds)
                say({"asset": f"{label}: Core AI against Core ML", "weight_bits": bits} | between(answers, others))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
