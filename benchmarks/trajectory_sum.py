"""Whether an objective over the steps of a trajectory beats its own single-step control, at equal passes.

    python -m benchmarks.trajectory_sum [--seeds 0 1] [--cells "single steps" "sum, share 1"] [--rates 1e-3] [--json rows.json]

Embedded model, W4A8, guidance 1, DDIM with 20 steps. All cells go on from one state of a calibration seed: rounding in closed form
and 200 single steps. Each then spends the same number of passes (evaluations of one sample, with gradient or without) on learned
rounding, scales, biases and ranges; figures are of averaged iterates, in the integer simulation on held-out seeds. Cells are told
apart in benchmarks/step_sums.py; flips (benchmarks/flips.py) go on from what single steps leave at the first rate.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import Judge, NoCheckpoint, Prepared, prepare, recipe_of, recorded, work_of
from benchmarks.flips import flip
from benchmarks.injected_errors import Accumulation, injected_errors
from benchmarks.quality import show
from benchmarks.step_sums import (
    Ground,
    Passes,
    carried_sum,
    of_huber,
    of_root,
    random_horizons,
    single_steps,
    sum_of_steps,
)
from dq_toolchain.calibrate.data.rollouts import rollouts_of
from dq_toolchain.calibrate.data.samples import held_out_seeds
from dq_toolchain.calibrate.finalize import finalize
from dq_toolchain.calibrate.fitting import VALIDATION_SHARE
from dq_toolchain.calibrate.fitting.phase import phases_of
from dq_toolchain.calibrate.fitting.run import fit_network
from dq_toolchain.calibrate.methods import resolve
from dq_toolchain.calibrate.multistep.fit import AVERAGE, BETAS, BIAS_RATE
from dq_toolchain.calibrate.network.insert import QuantizedNetwork
from dq_toolchain.toolchain.metrics import psnr
from dq_toolchain.toolchain.recipe.effort import effective
from dq_toolchain.toolchain.sampler.rollout import rollout

RECIPE: dict[str, dict[str, Any]] = {
    "quantize": {"weight_bits": 4},
    "sampler": {"guidance": 1.0, "steps": 20},
    "calibrate": {"effort": "quick", "samples": 512, "warmup": 200},
}
SINGLE = "single steps"
CELLS: dict[str, Callable[[Ground, torch.Generator], Passes]] = {
    SINGLE: lambda ground, random: single_steps(ground, random, of_root),
    "single steps, Huber": lambda ground, random: single_steps(ground, random, of_huber),
    "random horizons": random_horizons,
    **{f"sum, share {share:g}": lambda g, r, s=share: sum_of_steps(g, r, s) for share in (0.0, 0.3, 0.7, 1.0)},  # type: ignore[misc]
    **{f"carried sum, share {share:g}": lambda g, r, s=share: carried_sum(g, r, s) for share in (0.0, 0.3, 1.0)},  # type: ignore[misc]
}
FLIPS = {"flips by the sum": 1.0, "flips by powers": 0.0}
ALL = (*CELLS, *FLIPS)
RATIO_SEEDS = 8
Values = dict[str, Tensor]


def started(seed: int) -> tuple[Prepared, QuantizedNetwork]:
    """FP32's trajectories, and the network that every cell of a calibration seed starts with."""
    recipe = effective(recipe_of(RECIPE, {"run": {"seed": seed}}))
    prepared = prepare(recipe)
    work = work_of(prepared, recipe, NoCheckpoint())
    fit_network(phases_of(resolve("accuquant").fit, recipe), work)
    return prepared, work.network


def learned(network: QuantizedNetwork) -> dict[str, torch.nn.Parameter]:
    return network.scale_parameters() | network.weight_parameters()


def copied(network: QuantizedNetwork) -> Values:
    return {name: value.detach().clone() for name, value in learned(network).items()}


@torch.no_grad()
def load(network: QuantizedNetwork, values: Values) -> None:
    for name, parameter in learned(network).items():
        parameter.copy_(values[name])


def spend(network: QuantizedNetwork, iterations: Passes, passes: int, rate: float) -> int:
    """Adam down a half cosine, as the project's fit does it; the network is left with the average. Returns the iterations."""
    parameters = learned(network)
    rates = {"log_scale": rate, "offset": rate, "bias": BIAS_RATE * rate}
    groups = [
        {"params": [v for n, v in parameters.items() if n.endswith(f".{k}")], "base": r} for k, r in rates.items()
    ]
    optimizer = torch.optim.Adam(groups, betas=BETAS, fused=True)
    average, spent, count = copied(network), 0, 0
    while spent < passes:
        optimizer.zero_grad(set_to_none=False)
        share = 0.5 * (1 + math.cos(math.pi * spent / passes))
        spent += next(iterations)
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * share
        optimizer.step()
        network.clamp_offsets()
        with torch.no_grad():
            decay = min(AVERAGE, (1 + count) / (10 + count))
            torch._foreach_lerp_([*average.values()], [parameters[name] for name in average], 1 - decay)
        count += 1
    load(network, average)
    return count


class Measure:
    """FP32's samples of held-out seeds, and what a network's are worth against them."""

    def __init__(self, prepared: Prepared, seeds: int) -> None:
        self.context = context = prepared.context
        self.judge = Judge(context, seeds)
        self.few = context.draw(held_out_seeds(RATIO_SEEDS))
        self.targets = rollouts_of(
            context.network, context.table, self.few, guidance=1.0, batch=context.rollout_batch, device=context.device
        )

    @torch.no_grad()
    def figures(self, network: QuantizedNetwork) -> dict[str, Any]:
        """PSNR of all seeds; of a few, medians of closed loop / incoherent and of open loop / incoherent."""
        values = psnr(self.judge.simulated(finalize(network, self.context, {})), self.judge.fp32)
        context, rows = self.context, torch.arange(RATIO_SEEDS)
        with network.frozen_weights():
            quantized = context.denoiser(network, self.few, network.set_step)
            final = rollout(context.table, quantized, self.few.start)[-1] - self.targets.latents[-1]
            injected = injected_errors(
                context.table,
                lambda n: context.denoiser(
                    context.network, self.few.select(rows.repeat(n)), batch=context.rollout_batch
                ),
                quantized,
                self.targets,
            )
        added = Accumulation.of(final, injected).figures()
        return {
            "psnr": float(values.quantile(0.5)),
            "p10": float(values.quantile(0.1)),
            "pooled": float(-10 * torch.log10((10 ** (-values / 10)).mean())),
            "mean": float(values.mean()),
            "closed": added["closed_ratio"]["median"],
            "open": added["open_ratio"]["median"],
        }


def trials(args: argparse.Namespace, seed: int) -> Iterator[dict[str, Any]]:
    prepared, network = started(seed)
    measure, fitted = (
        Measure(prepared, args.held_out),
        len(prepared.context.samples) * (VALIDATION_SHARE - 1) // VALIDATION_SHARE,
    )
    ground, start, after = Ground.measured(prepared, network, fitted), copied(network), dict[str, Values]()
    explained = [round(value, 2) for value in ground.explained.tolist()]
    yield {"method": "start", "seed": seed, "explained": explained, **measure.figures(network)}
    for rate in args.rates:
        for name in args.cells:
            random, flips, begin = torch.Generator().manual_seed(seed), {}, time.process_time()
            if name in CELLS:
                load(network, start)
                flips = {"iterations": spend(network, CELLS[name](ground, random), args.passes, rate)}
            elif SINGLE in after and rate == args.rates[0]:
                load(network, after[SINGLE])
                flips = dict(zip(("passes", "kept", "flipped"), flip(ground, random, FLIPS[name]), strict=True))
            else:
                continue
            after[name] = after[name] if name in after else copied(network)
            seconds = round(time.process_time() - begin, 1)
            yield {"method": name, "seed": seed, "rate": rate, "seconds": seconds, **flips, **measure.figures(network)}


def main(args: argparse.Namespace) -> None:
    rows: list[dict[str, Any]] = []
    for row in recorded((row for seed in args.seeds for row in trials(args, seed)), args.json):
        rows.append(row)
        print(json.dumps(row), flush=True)
    show([{key: value for key, value in row.items() if key != "explained"} for row in rows])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=(0,), help="calibration seeds")
    parser.add_argument("--rates", type=float, nargs="+", default=(1e-3, 3e-4), help="learning rates")
    parser.add_argument("--cells", nargs="+", choices=ALL, default=ALL, help="some of them, in this order")
    parser.add_argument("--passes", type=int, default=4000)
    parser.add_argument("--held-out", type=int, default=128, help="held-out seeds")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    main(parser.parse_args())
