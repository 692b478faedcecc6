"""Histograms of every site per step group, along FP32 trajectories: while they are run, or on chosen parts of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.data.picard import outputs_of_rows
from dq_toolchain.calibrate.data.rollouts import Rollouts, parallel_rollouts, rollouts_of
from dq_toolchain.calibrate.network.insert import Prepared
from dq_toolchain.calibrate.ranges.device_histogram import DeviceHistograms
from dq_toolchain.calibrate.ranges.observer import Histogram, choose_qparams
from dq_toolchain.calibrate.work.workers import Workers
from dq_toolchain.toolchain.console.progress import Advance
from dq_toolchain.toolchain.quant.attention import PRODUCT_OPERANDS, ProductAttnProcessor, float_product
from dq_toolchain.toolchain.quant.hooks import hooks
from dq_toolchain.toolchain.quant.qparams import activation_type
from dq_toolchain.toolchain.quant.sites import attention_layers
from dq_toolchain.toolchain.recipe.sections import CalibrateSection
from dq_toolchain.toolchain.sampler.transfer import to_device

Histograms = list[list[Histogram]]
"""``[step group][site]``"""


def observe_rollouts(context: Context, advance: Advance = lambda n=1: None) -> tuple[Rollouts, Histograms]:
    """FP32 rollouts of the calibration samples with every site observed.

    Raises:
        CalibrationError: an activation is NaN or infinite; the text names the site.
    """
    with _observed(context) as (histograms, set_step):
        targets = shared_rollouts(context, set_step, advance)
    merge(histograms, context.workers)
    return targets, histograms


def shared_rollouts(
    context: Context,
    set_step: Callable[[int], None] | None = None,
    advance: Advance = lambda n=1: None,
) -> Rollouts:
    """FP32 rollouts of the calibration samples, of which each process runs its share.

    Args:
        set_step: told of steps that are run one after the other; None leaves it to ``parallel_steps`` whether they are.
    """
    workers, count = context.workers, len(context.samples)
    given = (context.network, context.table, context.samples.select(workers.share(count)))
    settings: dict[str, Any] = {
        "guidance": context.guidance,
        "batch": context.rollout_batch,
        "device": context.device,
        "advance": advance,
    }
    with context.shortened():
        if context.parallel_steps > 1 and set_step is None:
            part = parallel_rollouts(*given, window=context.parallel_steps, **settings)
        else:
            part = rollouts_of(*given, set_step=set_step, **settings)
    return Rollouts(workers.gather(part.latents, count, dim=1), workers.gather(part.outputs, count, dim=1))


@torch.no_grad()
def observe_chosen(context: Context, targets: Rollouts, chosen: Tensor | None, advance: Advance) -> Histograms:
    """Every site observed at FP32 latents that are known already, in the batches of ``observe_rollouts``.

    Args:
        chosen: (N, M) bool, the (step, sample) pairs; None takes all, with the histograms of ``observe_rollouts``.
    Raises:
        CalibrationError: an activation is NaN or infinite; the text names the site.
    """
    samples = context.samples
    with _observed(context) as (histograms, set_step), context.shortened():
        share = torch.arange(len(samples))[context.workers.share(len(samples))]
        if context.parallel_steps > 1:
            _call_by_group(context, targets, chosen, share, set_step, advance)
            share = share[:0]
        for rows in share.split(context.rollout_batch):
            for k in range(context.table.calls):
                wanted = rows if chosen is None else rows[chosen[k, rows]]
                advance(1)
                if not len(wanted):
                    continue
                network = context.denoiser(context.network, samples.select(wanted), set_step)
                network(to_device(targets.latents[k, wanted], context.device), k)
    merge(histograms, context.workers)
    return histograms


def _call_by_group(
    context: Context,
    targets: Rollouts,
    chosen: Tensor | None,
    share: Tensor,
    set_step: Callable[[int], None],
    advance: Advance,
) -> None:
    """FP32 at latents that are known already, all steps of a step group together: as few calls as the batch allows."""
    for steps in context.step_groups:
        group = torch.tensor(steps)
        wanted = torch.ones(len(steps), len(share)) if chosen is None else chosen[group][:, share]
        step, sample = wanted.nonzero(as_tuple=True)
        for part in torch.arange(len(step)).split(context.rollout_batch):
            k, rows = group[step[part]], share[sample[part]]
            set_step(steps[0])
            network = context.denoiser(context.network, context.samples.select(rows))
            outputs_of_rows(network, to_device(targets.latents[k, rows], context.device), k)
        advance(len(steps))


def merge(histograms: Histograms, workers: Workers) -> None:
    """What all processes have counted, in each of them."""
    if workers.count == 1:
        return
    every = [histogram for row in histograms for histogram in row]
    ends = torch.tensor([[h.span, -h.low, h.high, h.output] for h in every], dtype=torch.float64)
    for histogram, (span, low, high, output) in zip(every, workers.largest(ends).tolist(), strict=True):
        histogram.widen(span)
        histogram.low, histogram.high, histogram.output = -low, high, output
    for histogram, counts in zip(every, workers.sum(torch.stack([h.counts for h in every])), strict=True):
        histogram.counts = counts


def choose_all(context: Context, histograms: Histograms, settings: CalibrateSection) -> tuple[Tensor, Tensor]:
    """scale (G, L) float32 and zero_point (G, L) int32. A step group of which nothing was chosen takes the nearest's."""
    rows = [_nearest_seen(histograms, g) for g in range(len(histograms))]
    chosen = [
        [
            choose_qparams(histogram, activation_type(site.bits), site.scheme, settings.ranges, settings.percentile)
            for site, histogram in zip(context.prepared.sites, row, strict=True)
        ]
        for row in rows
    ]
    scale = torch.stack([torch.stack([s for s, _ in row]) for row in chosen])
    return scale, torch.stack([torch.stack([z for _, z in row]) for row in chosen])


def _nearest_seen(histograms: Histograms, group: int) -> list[Histogram]:
    seen = [g for g, row in enumerate(histograms) if float(row[0].counts.sum()) > 0]
    return histograms[min(seen, key=lambda g: abs(g - group))]


@contextmanager
def _observed(context: Context) -> Iterator[tuple[Histograms, Callable[[int], None]]]:
    """Hooks on every site while inside; what they fill, and what has to be told the step."""
    prepared, current = context.prepared, [0]
    histograms = [[Histogram() for _ in prepared.sites] for _ in context.step_groups]
    column = {site.name: index for index, site in enumerate(prepared.sites)}
    device = None if context.device.type == "cpu" else DeviceHistograms(context.device)

    def collect(name: str, x: Tensor) -> None:
        if device is None:
            histograms[current[0]][column[name]].collect(x, name)
        else:
            device.collect(current[0], column[name], x, name)

    def set_step(k: int) -> None:
        current[0] = context.group_of_step[k]
        if device is not None:
            device.check()

    def collect_output(name: str, out: Tensor) -> None:
        if device is not None:
            device.of(current[0], column[name]).collect_output(out)
            return
        histogram = histograms[current[0]][column[name]]
        histogram.output = max(histogram.output, *(abs(float(end)) for end in torch.aminmax(out)))

    with _hooked(prepared, collect, collect_output):
        yield histograms, set_step
    if device is not None:
        device.into(histograms)


@contextmanager
def _hooked(
    prepared: Prepared, collect: Callable[[str, Tensor], None], collect_output: Callable[[str, Tensor], None]
) -> Iterator[None]:
    names = {module: name for name, module in attention_layers(prepared.network)}

    def product(attention: Attention, which: str, left: Tensor, right: Tensor) -> Tensor:
        for operand, x in zip(PRODUCT_OPERANDS[which], (left, right), strict=True):
            collect(f"{names[attention]}:{operand}", x)
        out = float_product(attention, which, left, right)
        if f"{names[attention]}:{which}" in results:
            collect(f"{names[attention]}:{which}", out)
        return out

    def watched() -> Iterator[RemovableHandle]:
        for site in prepared.sites:
            if site.kind == "attention":
                continue
            module, name = prepared.network.get_submodule(site.layer), site.name
            if site.is_result:
                yield module.register_forward_hook(lambda _module, _inputs, out, name=name: collect(name, out))
                continue
            yield module.register_forward_pre_hook(lambda _module, inputs, name=name: collect(name, inputs[0]))
            yield module.register_forward_hook(lambda _module, _inputs, out, name=name: collect_output(name, out))

    results = {site.name for site in prepared.sites if site.is_result}
    quantized = {site.layer for site in prepared.sites if site.kind == "attention"}
    processors = {module: module.processor for module, name in names.items() if name in quantized}
    for module in processors:
        module.set_processor(ProductAttnProcessor(product))
    try:
        with hooks(watched()):
            yield
    finally:
        for module, processor in processors.items():
            module.set_processor(processor)
