"""The phase that rounds all weights in closed form, before a fit over steps: its end for the integers, or their start."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from dq_toolchain.calibrate.blocks.evaluations import Evaluations
from dq_toolchain.calibrate.blocks.guided_hessians import guided_hessians_of
from dq_toolchain.calibrate.blocks.hessians import ROOM, bytes_of, hessians_of, in_parts
from dq_toolchain.calibrate.blocks.second_order import LARGEST, MARGIN, has_patches, rounded
from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.fitting.memory import OFFLOADED, ROUNDED
from dq_toolchain.calibrate.fitting.phase import WEIGHTS, FitResult, Needs, Phase, Work
from dq_toolchain.calibrate.fitting.rows import bytes_of_rows, drawn_rows
from dq_toolchain.calibrate.network.activation_memory import ActivationMemory
from dq_toolchain.calibrate.work.constants import constants_of
from dq_toolchain.toolchain.console.progress import Advance
from dq_toolchain.toolchain.errors import CalibrationError
from dq_toolchain.toolchain.quant.layers import Layer
from dq_toolchain.toolchain.quant.sites import weighted_layers
from dq_toolchain.toolchain.recipe.sections import Recipe

MODULES = (*WEIGHTS, "blocks.second_order", "blocks.hessians", "blocks.guided_hessians")
"""Whose constants decide the result."""
FACTORS = 6
"""float64 matrices of one block of a Hessian while it is factored."""
WORK = 3.0
"""Passes that a row takes, with the sums over its inputs."""
GUIDED_WORK = 12.0
"""The same where a row is run back as well."""


class SecondOrder(Phase):
    name: ClassVar[str] = "second_order"
    sections: ClassVar[frozenset[str]] = frozenset({"blocks.rows"})

    def run(self, work: Work) -> FitResult:
        context, network = work.trajectories.context, work.network
        rows = drawn_rows(work)
        begin = time.perf_counter()
        open_layers = {name for name, layer in network.layers.items() if layer.weight_quantizer.chosen is None}
        layers = {name: layer for name, layer in _layers(context).items() if name in open_layers}
        if not layers:  # a phase before this one has chosen all integers
            return FitResult([], None, 0.0)
        skipped = sorted(open_layers - set(layers))
        if skipped:
            work.reporter.warn(
                f"transposed convolutions have no closed-form rounding and are rounded to nearest: {', '.join(skipped)}"
            )
        parts = in_parts(layers)
        with work.reporter.task("rounding weights", len(parts) * len(rows)) as advance:
            for number, part in enumerate(parts):
                checkpoint = work.checkpoint.part(number)
                saved = checkpoint.load()
                if saved is None:
                    chosen = self._part(work, layers, part, rows, advance)
                    checkpoint.save(chosen, {})
                else:
                    chosen = saved[0]
                    advance(len(rows))
                for name, integers in chosen.items():
                    quantizer = network.layers[name].weight_quantizer
                    integers = integers.to(quantizer.weight.device)
                    if quantizer.offset is not None:
                        quantizer.begin_near(integers, MARGIN)
                        continue
                    quantizer.choose(integers)
                    if network.streaming is not None:
                        network.streaming.chose(quantizer)
        return FitResult([{"stage": "closed-form rounding", "rows": len(rows)}], None, time.perf_counter() - begin)

    def _part(
        self, work: Work, layers: dict[str, Layer], part: list[str], rows: Evaluations, advance: Advance
    ) -> dict[str, Tensor]:
        context, network = work.trajectories.context, work.network
        if not _is_guided(work.recipe):
            summed = {name: layers[name] for name in part}
            sums = hessians_of(
                context.network, summed, rows, context.rollout_batch, context.device, context.seed, advance
            )
        else:
            noise = {name: network.layers[name].weight_quantizer.searched.square().mean() for name in layers}
            sums = guided_hessians_of(context.network, layers, part, noise, rows, context.device, context.seed, advance)
        found = {}
        for name in part:
            network.bring(name)
            quantizer = network.layers[name].weight_quantizer
            kind = quantizer.kind
            try:
                integers = rounded(quantizer.ratio.to(context.device), sums.pop(name), kind.qmin, kind.qmax)
            except ValueError as error:
                raise CalibrationError(
                    f"{name} has inputs that are NaN, infinite or too large to be squared; name it in [quantize] keep_float, or "
                    'set [calibrate] rounding = "learned"'
                ) from error
            found[name] = context.workers.agreed(integers).to(torch.int8).cpu()
        return found

    def needs(self, context: Context, recipe: Recipe, one: ActivationMemory) -> Needs:
        layers = _layers(context)
        largest = max((bytes_of(layer) for layer in layers.values()), default=0)
        columns = max((min(layer.weight[0].numel(), LARGEST) for layer in layers.values()), default=0)
        sums = min(ROOM, sum(bytes_of(layer) for layer in layers.values()))
        return Needs(
            per_weight=OFFLOADED if recipe.run.offload else ROUNDED,
            floats=(max(sums, largest) + FACTORS * 8 * columns**2) // 4,
            activations=one.backward + one.inputs if _is_guided(recipe) else 0,
            host=bytes_of_rows(context, recipe),
        )

    def passes(self, context: Context, recipe: Recipe) -> float:
        work = GUIDED_WORK if _is_guided(recipe) else WORK
        return work * recipe.blocks.rows * len(in_parts(_layers(context)))

    def hyper_parameters(
        self, recipe: Recipe, block_options: Mapping[str, Any], step_groups: Iterable[tuple[int, ...]]
    ) -> dict[str, Any]:
        return {"rows": recipe.blocks.rows, "constants": constants_of(*MODULES)}


SECOND_ORDER = SecondOrder()


def _is_guided(recipe: Recipe) -> bool:
    """Whether inputs are weighted by what errors there do to the output. With ``offload`` a pass with gradient has no room."""
    return not recipe.run.offload


def _layers(context: Context) -> dict[str, Layer]:
    """Of the FP32 network, those whose weights become integers here."""
    kept = context.prepared.float_layers
    return {n: layer for n, layer in weighted_layers(context.network) if n not in kept and has_patches(layer)}
