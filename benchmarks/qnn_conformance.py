"""Graphs of the embedded model for Snapdragon's NPU on Qualcomm's emulator: operation by operation, block by block, and whole.

    python -m benchmarks.qnn_conformance [--calibration FOLDER] [--blocks] [--json qnn.json]

The first step of every step group at the simulation's latent of one seed: products against exact arithmetic with the bits dropped
that the chip drops, what is between them against float32, and one whole call of the graph for the NPU against the calibrated one in
ONNX Runtime on the CPU. Needs Qualcomm's wheel, and about a minute per step group; ``--blocks`` five more.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dq_toolchain.backends.common.call import example_call
from dq_toolchain.backends.common.onnx.session import open_session as open_on_cpu
from dq_toolchain.backends.qnn.chips import EMULATED
from dq_toolchain.backends.qnn.graph.biases import graph_to_compile
from dq_toolchain.backends.qnn.htp.emulator import Emulator
from dq_toolchain.backends.qnn.htp.operations import compare, compare_blocks
from dq_toolchain.backends.qnn.lowering import write_graphs
from dq_toolchain.toolchain.formats.artifact import Artifact, load_reference
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.metrics import relative_error
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork


def inputs_of(artifact: Artifact, reference: Reference, k: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """What step k of a held-out seed gives a graph, by name: the simulation's own latent."""
    assert artifact.step_vectors is not None
    return {
        "sample": reference.simulation_latents[k][seed : seed + 1] * artifact.table.input_scale[k],
        "step_vectors": artifact.step_vectors.rows[k : k + 1],
        **reference.conditioning.select(slice(seed, seed + 1)).cond,
    }


def measure(path: Path, artifact: Artifact, reference: Reference, group: int, blocks: bool) -> dict[str, Any]:
    """One step group's graph."""
    k = artifact.step_groups[group][0]
    inputs, simulated = inputs_of(artifact, reference, k), SimulatedNetwork(artifact)
    found = compare(graph_to_compile(path.parent, path.stem), artifact, simulated, k, inputs)
    emulator, session = Emulator(path.parent, EMULATED), open_on_cpu(path)
    emulator.open(path.stem)
    start = time.perf_counter()
    whole = emulator(path.stem, inputs)
    seconds = time.perf_counter() - start
    feeds = {port.name: inputs[port.name].numpy() for port in session.get_inputs()}
    wide = [each for each in found.islands if each.bits != 8]
    worst = max(wide, key=lambda each: each.relative)
    return {
        "step_group": group, "products": len(found.products), "steps": max(each.steps for each in found.products),
        "exact_steps": max(each.exact_steps for each in found.products),
        "different": max(each.different for each in found.products), "between": worst.relative, "worst": worst.name,
        "steps_of_8_bits": max((each.steps for each in found.islands if each.bits == 8), default=0), "faults": found.faults,
        "whole_call": float(relative_error(whole, torch.from_numpy(session.run(None, feeds)[0])).max()),
        "seconds_per_call": seconds,
        **({"blocks": [asdict(each) for each in compare_blocks(path, artifact, simulated, k, inputs)]} if blocks else {}),
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibration", type=Path, default=Path("dq-out/calibration"))
    parser.add_argument("--blocks", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    given, held_out = Artifact.load(arguments.calibration), load_reference(arguments.calibration)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        written = write_graphs(given, example_call(given, held_out), Path(name), lambda _: None)
        for number, method in enumerate(written.methods):
            rows.append(measure(Path(name) / f"{method}.onnx", given, held_out, number, arguments.blocks))
            print(rows[-1], flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
