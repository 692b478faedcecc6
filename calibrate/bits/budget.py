"""Bits layer by layer within a budget: sensitivities, the choices worth making, and which of them is enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dq_toolchain.calibrate.bits.allocation import Layer, allocations, bits_of
from dq_toolchain.calibrate.bits.sensitivity import final_errors
from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.data.rollouts import rollouts_of
from dq_toolchain.calibrate.data.trajectories import Trajectories
from dq_toolchain.calibrate.network.activation_checkpointing import checkpointed
from dq_toolchain.calibrate.ranges.quantized import quantize_with, weight_scale
from dq_toolchain.calibrate.work.checkpoint import CheckpointFile
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.errors import CalibrationError
from dq_toolchain.toolchain.metrics import median, psnr
from dq_toolchain.toolchain.recipe.budget import Budget
from dq_toolchain.toolchain.recipe.sections import Recipe

WIDTHS = (4, 8)
"""Of weights. Runtimes have int8 products everywhere, and forms that save memory for 4 bits; other widths take 8 there."""
FLOAT_BITS = 32
PROBES = 32
JUDGES = 16
"""Samples that a choice is run on."""


@dataclass(frozen=True, kw_only=True)
class WithinBudget:
    """What was chosen.

    Attributes:
        asked: the budget. size: bits of all weights over 32 each.
        psnr_before_fit: median of the validation samples, nearest rounding, searched ranges; None where only size is bounded.
        bits: layer -> bits.
        errors: layer -> bits in words -> predicted mean squared error of the final latent when this layer alone is rounded to them;
            of the layers that could be chosen.
    """

    asked: str
    size: float
    psnr_before_fit: float | None
    bits: dict[str, int]
    errors: dict[str, dict[str, float]]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Without seconds: an artifact holds nothing that differs between two runs."""
        return {name: value for name, value in asdict(self).items() if name != "seconds"}


def with_budget(
    recipe: Recipe,
    context: Context,
    scale: Tensor,
    zero_point: Tensor,
    run: Trajectories,
    checkpoint: CheckpointFile,
    reporter: Reporter,
) -> tuple[Context, WithinBudget]:
    """The setup with weight bits that keep to the recipe's budget, from the checkpoint if it is there.

    Edges (the first layer and the last) keep ``edge_bits``; layers in float count 32. A bound on PSNR is met before the
    fit, which then only adds to it: the smallest such choice is taken, or within the size the largest.

    Args:
        scale, zero_point: (G, L).
    Raises:
        CalibrationError: no choice is small enough.
    """
    saved = checkpoint.load()
    if saved is not None:
        budgeted = WithinBudget(**saved[1])
        return _with_bits(context, budgeted.bits), budgeted
    begin = time.perf_counter()
    assert recipe.quantize.budget is not None
    budget = Budget.parse(recipe.quantize.budget)
    weights, fixed = _weights(context), _fixed(context, recipe)
    errors = _errors(recipe, context, run, weights, fixed, reporter)
    layers = [Layer(name, weights[name], each) for name, each in errors.items()]
    choices = [{**fixed, **choice} for choice in allocations(layers)]
    sizes = [bits_of(weights, choice) / (FLOAT_BITS * sum(weights.values())) for choice in choices]
    fitting = [i for i, size in enumerate(sizes) if budget.size is None or size <= budget.size]
    if not fitting:
        raise CalibrationError(
            f"--budget {recipe.quantize.budget}: the smallest choice of {' or '.join(map(str, WIDTHS))} bits takes "
            f"{sizes[0]:.3f} of FP32's size; raise size, or lower edge_bits or what stays in float"
        )
    found: float | None = None
    index = fitting[-1]
    if budget.psnr is not None:
        plain = recipe.model_copy(update={"calibrate": recipe.calibrate.model_copy(update={"rounding": "nearest"})})

        def measure(i: int) -> float:
            figure = _psnr(plain, _with_bits(context, choices[i]), scale, zero_point, run)
            return float(context.workers.agreed(torch.tensor(figure, dtype=torch.float64)))

        index, found = _smallest(fitting, budget.psnr, measure)
    bits = {name: width for name, width in choices[index].items() if width != FLOAT_BITS}
    budgeted = WithinBudget(
        asked=recipe.quantize.budget,
        size=sizes[index],
        psnr_before_fit=found,
        bits=bits,
        errors={name: {str(width): error for width, error in each.items()} for name, each in errors.items()},
        seconds=time.perf_counter() - begin,
    )
    checkpoint.save({}, asdict(budgeted))
    return _with_bits(context, bits), budgeted


def _weights(context: Context) -> dict[str, int]:
    layers = (
        *(site.layer for site in context.prepared.sites if site.weight_bits is not None),
        *context.prepared.float_layers,
    )
    return {name: context.network.get_parameter(f"{name}.weight").numel() for name in layers}


def _fixed(context: Context, recipe: Recipe) -> dict[str, int]:
    """Bits of the layers that are not for choosing."""
    edges = {site.layer: site.weight_bits for site in context.prepared.sites if site.layer in context.prepared.edges}
    return {name: bits for name, bits in edges.items() if bits is not None} | dict.fromkeys(
        context.prepared.float_layers, FLOAT_BITS
    )


def _errors(
    recipe: Recipe,
    context: Context,
    run: Trajectories,
    weights: dict[str, int],
    fixed: dict[str, int],
    reporter: Reporter,
) -> dict[str, dict[int, float]]:
    names = [name for name in weights if name not in fixed]
    scales = {name: {bits: weight_scale(context, name, bits) for bits in WIDTHS} for name in names}
    saving = checkpointed(context.network) if recipe.run.offload else nullcontext()
    with saving, reporter.task("sensitivity of layers", PROBES) as advance:
        return final_errors(run, scales, PROBES, advance)


def _smallest(indices: Sequence[int], wanted: float, measure: Callable[[int], float]) -> tuple[int, float]:
    """The first index whose figure is enough, by bisection (figures rise but for noise); the last if none is."""
    low, high = 0, len(indices) - 1
    best = measure(indices[high])
    while low < high and best >= wanted:
        middle = (low + high) // 2
        figure = measure(indices[middle])
        if figure >= wanted:
            high, best = middle, figure
        else:
            low = middle + 1
    return indices[high], best


@torch.no_grad()
def _psnr(recipe: Recipe, context: Context, scale: Tensor, zero_point: Tensor, run: Trajectories) -> float:
    """Median over the validation samples, dB."""
    network, few = quantize_with(context, scale, zero_point, recipe), run.first(JUDGES)
    with network.frozen_weights():
        made = rollouts_of(
            network,
            context.table,
            few.samples,
            guidance=context.guidance,
            batch=context.rollout_batch,
            device=context.device,
            set_step=network.set_step,
        )
    return float(median(psnr(made.latents[-1], few.targets.latents[-1])))


def _with_bits(context: Context, bits: dict[str, int]) -> Context:
    sites = tuple(
        site if site.weight_bits is None else replace(site, weight_bits=bits[site.layer])
        for site in context.prepared.sites
    )
    return replace(context, prepared=replace(context.prepared, sites=sites))
