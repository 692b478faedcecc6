"""The integer simulation with integer products and with float ones, call by call in turn: seconds, and whether they agree.

python -m benchmarks.simulation_speed [--model models/cifar10] [--bits W8A8] [--batch 64] [--threads 1]
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import fit, prepare, recipe_of, study_recipe
from dq_toolchain.calibrate.data.samples import held_out_seeds
from dq_toolchain.toolchain.sampler.denoiser import Denoiser
from dq_toolchain.toolchain.simulation.integer_products import available
from dq_toolchain.toolchain.simulation.network import SimulatedLayer, SimulatedNetwork

ROUNDS = 15


def in_float(network: SimulatedNetwork) -> SimulatedNetwork:
    """The same network, its products in float."""
    for layer in network.modules():
        if isinstance(layer, SimulatedLayer):
            layer.product = None
    return network


@torch.no_grad()
def main(args: argparse.Namespace) -> None:
    if not available():
        raise SystemExit("this processor has no exact integer products; nothing to compare")
    torch.set_num_threads(args.threads)
    prepared = prepare(recipe_of(study_recipe(args, {"samples": 16})))
    artifact, _ = fit(prepared, prepared.recipe, iterations=False)
    samples = prepared.context.draw(held_out_seeds(args.batch))
    cond = samples.conditioning
    unet = prepared.context.prepared.network
    networks: dict[str, Any] = {"integers": SimulatedNetwork(artifact), "float": in_float(SimulatedNetwork(artifact))}
    calls = {
        name: Denoiser(network, artifact.table, cond, 1.0, network.set_step) for name, network in networks.items()
    } | {"FP32": Denoiser(unet, artifact.table, cond, 1.0)}
    times: dict[str, list[float]] = {name: [] for name in calls}
    outputs: dict[str, Tensor] = {}
    for _ in range(ROUNDS + 1):
        for name, call in calls.items():
            begin = perf_counter()
            outputs[name] = call(samples.start, 0)
            times[name].append(perf_counter() - begin)
    for name, seconds in times.items():
        ratio = statistics.median(a / b for a, b in zip(seconds[1:], times["float"][1:], strict=True))
        print(f"{name:9} median {statistics.median(seconds[1:]):.3f} s, {ratio:.2f} of float's")
    apart = (outputs["integers"] - outputs["float"]).norm() / (outputs["float"] - outputs["FP32"]).norm()
    print(f"difference between the two: {apart:.2g} of the quantization's error")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="diffusers folder; default: the embedded model")
    parser.add_argument("--bits", default="W8A8")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    main(parser.parse_args())
