"""Peak allocator memory of one calibration iteration against the number of denoising steps it simulates.

    python -m benchmarks.memory [--json memory.json]

Counted from torch's own allocator events, so that it is activations and gradients, not the process.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from dq_toolchain.calibrate.gradients import Gradient, State, segment_gradient
from dq_toolchain.calibrate.objective import robust_loss
from dq_toolchain.calibrate.run import quantize_with, setup
from dq_toolchain.toolchain.denoiser import Denoiser
from dq_toolchain.toolchain.recipe import Recipe, load_recipe

HORIZONS = (1, 2, 5, 10, 20)


def peak_bytes(recipe: Recipe, horizon: int, gradient: Gradient) -> int:
    """Highest sum of live allocations during one segment gradient, beyond what was live before it."""
    state = setup(recipe)
    shape = (len(state.step_groups), len(state.prepared.sites))
    network = quantize_with(state, torch.full(shape, 2.0**-5), torch.zeros(shape, dtype=torch.int32), recipe)
    part = state.samples.select(slice(0, recipe.calibrate.batch))
    denoiser = Denoiser(network, state.table, part.conditioning, recipe.sampler.guidance, network.set_step)
    targets = torch.zeros(horizon + 1, *part.start.shape)

    def iteration() -> None:
        with network.weights_once():
            segment_gradient(
                state.table, denoiser, State((part.start,)), 0, horizon, robust_loss(targets, 0, horizon), gradient
            )

    iteration()  # gradients exist from here on, as they do throughout a fit
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        iteration()
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="diffusers folder; default: the embedded model")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    chosen = load_recipe(None, {"model": {"path": arguments.model}, "calibrate": {"samples": 16}})
    rows: dict[str, dict[int, float]] = {}
    for kind in ("adjoint", "surrogate", "full"):
        rows[kind] = {n: peak_bytes(chosen, n, kind) / 2**20 for n in HORIZONS}  # type: ignore[arg-type]
        print(f"{kind:10}", "  ".join(f"n={n}: {mib:8.1f} MiB" for n, mib in rows[kind].items()), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
