"""One gradient of Stable Diffusion 1.5's size with our fake quantization, with PyTorch's own and with none, in turn."""

from __future__ import annotations

import gc
from dataclasses import asdict, replace

import torch

from benchmarks.fake_quant_speed import Figures, measured
from benchmarks.gpu.network import FULL, TINY, random_model, recipe_for
from benchmarks.gpu.record import Plan, Record
from dq_toolchain.calibrate.prepare.setup import setup

SAMPLES = (2, 1)
"""Trajectories, each of which is two rows with guidance: fewer where the networks side by side do not fit with more."""


def run(record: Record, plan: Plan) -> None:
    size = TINY if plan.tiny else FULL
    recipe = recipe_for(
        size, plan.device, plan.scratch, calibrate={"samples": 2, "batch": 2, "rounding": "closed-form+learned"}
    )
    context = setup(recipe, given=random_model(size, plan.device))
    figures: Figures | None = None
    for samples in SAMPLES:
        try:
            part = replace(context, samples=context.samples.select(slice(0, samples)))
            figures = measured(part, recipe, repeats=1 if plan.tiny else 5)
            break
        except torch.OutOfMemoryError as error:
            record.row("Did not fit", samples=samples, why=str(error).splitlines()[0])
        gc.collect()
        torch.cuda.empty_cache()
    assert figures is not None, "one sample does not fit"
    for row in figures.rows:
        record.row("Gradients", fake_quantization=row.name, **{k: v for k, v in asdict(row).items() if k != "name"})
    seconds = {row.name: row.seconds for row in figures.rows}
    record.value("ours_to_torch", seconds["ours"] / seconds["torch"])
    record.value("ours_to_composed", seconds["ours"] / seconds["composed"])
    record.value("ours_to_float", seconds["ours"] / seconds["float"])
    record.value("samples", figures.samples)
    record.value("fused_kernels", figures.kernels)
    record.value("why_no_fused_kernels", figures.why_not)
