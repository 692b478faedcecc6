"""FP32 rollouts: the trajectories that calibration aims at, and the histograms of every site met on the way.

One pass gives both. Kept are latents (steps x samples, of the size of the pictures) and one histogram per site and
step group; no activation outlives its batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from dq_toolchain.calibrate.gradients import State
from dq_toolchain.calibrate.insert import Prepared
from dq_toolchain.calibrate.observer import Histogram
from dq_toolchain.calibrate.samples import Samples
from dq_toolchain.toolchain.attention import ProductAttnProcessor, float_product
from dq_toolchain.toolchain.denoiser import Denoiser
from dq_toolchain.toolchain.rollout import rollout
from dq_toolchain.toolchain.sampler_table import SamplerTable
from dq_toolchain.toolchain.sites import attention_layers


@dataclass(frozen=True)
class Targets:
    """``latents`` (N+1, M, C, H, W) and ``outputs`` (N, M, C, H, W), float32, of the FP32 network."""

    latents: Tensor
    outputs: Tensor

    def select(self, index: slice, device: torch.device) -> Targets:
        """Some of the samples, on a device."""
        return Targets(self.latents[:, index].to(device), self.outputs[:, index].to(device))

    def state(self, table: SamplerTable, step: int, index: Tensor) -> State:
        """Where FP32 stands before ``step``, with the history that the sampler looks back on."""
        back_latents, back_outputs = len(table.a[0]), len(table.b[0]) - 1
        return State(
            tuple(self.latents[k, index] for k in range(step, max(-1, step - back_latents), -1)),
            tuple(self.outputs[k, index] for k in range(step - 1, max(-1, step - 1 - back_outputs), -1)),
        )


@torch.no_grad()
def fp32_rollouts(
    unet: nn.Module,
    table: SamplerTable,
    samples: Samples,
    guidance: float,
    batch: int,
    device: torch.device,
    set_step: Callable[[int], None] | None = None,
    advance: Callable[..., None] = lambda n=1: None,
) -> Targets:
    """Run the sampler for every sample, ``batch`` at a time; results on the CPU."""
    latents, outputs = [], []
    for begin in range(0, len(samples), batch):
        part = samples.select(slice(begin, begin + batch))
        network = Denoiser(unet, table, part.conditioning.to(device), guidance, set_step)
        found: list[Tensor] = []
        noise = None if part.step_noise is None else part.step_noise.to(device)

        def on_step(_k: int, _x: Tensor, f: Tensor, found: list[Tensor] = found) -> None:
            found.append(f.cpu())
            advance(1)

        latents.append(rollout(table, network, part.start.to(device), noise=noise, on_step=on_step).cpu())
        outputs.append(torch.stack(found))
    return Targets(torch.cat(latents, dim=1), torch.cat(outputs, dim=1))


def observe(
    prepared: Prepared,
    table: SamplerTable,
    samples: Samples,
    guidance: float,
    batch: int,
    device: torch.device,
    group_of_step: tuple[int, ...],
    advance: Callable[..., None],
) -> tuple[Targets, list[list[Histogram]]]:
    """FP32 rollouts with every site observed.

    Returns:
        Targets and histograms[step_group][site].
    Raises:
        CalibrationError: an activation is NaN or infinite; the text names the site.
    """
    groups = max(group_of_step) + 1
    histograms = [[Histogram() for _ in prepared.sites] for _ in range(groups)]
    column = {site.name: index for index, site in enumerate(prepared.sites)}
    current = [0]

    def collect(name: str, x: Tensor) -> None:
        histograms[current[0]][column[name]].collect(x, name)

    def product(attention: Attention, which: str, left: Tensor, right: Tensor) -> Tensor:
        first, second = ("q", "k") if which == "scores" else ("probs", "v")
        collect(f"{attention_names[attention]}:{first}", left)
        collect(f"{attention_names[attention]}:{second}", right)
        return float_product(attention, which, left, right)

    attention_names = {module: name for name, module in attention_layers(prepared.unet)}
    processors: dict[Attention, Any] = {}
    handles = []
    for site in prepared.sites:
        if site.weight_bits is not None:
            handles.append(
                prepared.unet.get_submodule(site.layer).register_forward_pre_hook(
                    lambda _module, inputs, name=site.name: collect(name, inputs[0])
                )
            )
        elif site.operand == "q":
            module = prepared.unet.get_submodule(site.layer)
            assert isinstance(module, Attention)
            processors[module] = module.processor
            module.set_processor(ProductAttnProcessor(product))

    def set_step(k: int) -> None:
        current[0] = group_of_step[k]

    try:
        return fp32_rollouts(prepared.unet, table, samples, guidance, batch, device, set_step, advance), histograms
    finally:
        for handle in handles:
            handle.remove()
        for module, processor in processors.items():
            module.set_processor(processor)
