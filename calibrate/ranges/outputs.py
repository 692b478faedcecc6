"""Smallest and largest value of what every product of a finished artifact gives, along its own rollouts of the calibration
samples: what runtimes need that quantize every output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.data.rollouts import rollouts_of
from dq_toolchain.calibrate.work.host_reads import read_on_host
from dq_toolchain.toolchain.console.progress import Advance
from dq_toolchain.toolchain.errors import CalibrationError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.output_ranges import OutputRanges, names_of
from dq_toolchain.toolchain.quant.attention import ProductAttnProcessor
from dq_toolchain.toolchain.quant.hooks import hooks
from dq_toolchain.toolchain.quant.sites import attention_layers
from dq_toolchain.toolchain.simulation.network import SimulatedLayer, SimulatedNetwork


@dataclass
class Extremes:
    """(smallest, largest) of each product in each step group, on the device; the host knows none of them until the end."""

    found: dict[tuple[int, str], tuple[Tensor, Tensor]] = field(default_factory=dict)

    def collect(self, group: int, name: str, x: Tensor) -> None:
        """Add a tensor of any shape."""
        low, high = torch.aminmax(x)
        before = self.found.get((group, name))
        if before is not None:
            low, high = torch.minimum(low, before[0]), torch.maximum(high, before[1])
        self.found[group, name] = low, high

    def table(self, groups: int, names: tuple[str, ...]) -> Tensor:
        """(2, G, P) float32 on the CPU: -smallest and largest."""
        rows = [torch.stack(self.found[group, name]) for group in range(groups) for name in names]
        low, high = read_on_host(torch.stack(rows, dim=1), "output ranges").view(2, groups, len(names))
        return torch.stack([-low, high])


@torch.no_grad()
def measure_outputs(artifact: Artifact, context: Context, advance: Advance = lambda n=1: None) -> OutputRanges:
    """Run the simulation for all calibration samples, with the correction that the artifact's table has.

    Raises:
        CalibrationError: a product gives NaN or infinity; the text names it.
    """
    device = context.simulation_device
    names, groups = names_of(artifact.sites), len(artifact.step_groups)
    simulated, extremes = SimulatedNetwork(artifact).to(device), Extremes()
    share = context.samples.select(context.workers.share(len(context.samples)))
    with _watched(simulated, lambda name, x: extremes.collect(simulated.switch.current, name, x)):
        rollouts_of(
            simulated,
            artifact.table,
            share,
            guidance=artifact.guidance,
            batch=context.simulation_batch,
            device=device,
            set_step=simulated.set_step,
            advance=advance,
        )
    negative, high = context.workers.largest(extremes.table(groups, names))
    bad = (~(negative.isfinite() & high.isfinite())).any(0)
    if bad.any():
        raise CalibrationError(
            f"the quantized network gives NaN or infinity at {names[int(bad.nonzero()[0])]}; "
            "check the model's weights and the scheduler"
        )
    return OutputRanges(names, -negative, high)


@contextmanager
def _watched(simulated: SimulatedNetwork, collect: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Hooks on every product while inside; they see results before these are quantized, if they are."""

    def watching(attention: Attention, name: str, processor: ProductAttnProcessor) -> ProductAttnProcessor:
        def product(attention: Attention, which: str, left: Tensor, right: Tensor) -> Tensor:
            out = processor.product(attention, which, left, right)
            collect(f"{name}:{which}", out)
            return out

        return ProductAttnProcessor(product)

    def watched() -> Iterator[RemovableHandle]:
        for name, module in simulated.inner.named_modules():
            if isinstance(module, SimulatedLayer):
                yield module.register_forward_hook(
                    lambda _module, _inputs, out, name=name: collect(f"{name}:output", out)
                )

    for name, attention in attention_layers(simulated.inner):
        if isinstance(attention.processor, ProductAttnProcessor):
            attention.set_processor(watching(attention, name, attention.processor))
    with hooks(watched()):
        yield
