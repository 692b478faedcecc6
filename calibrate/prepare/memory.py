"""How much memory a calibration needs, said before it starts; what does not fit is refused, with what would.

Counted are tensors: those of the size of the weights, of which a fit holds several, activations (from a run on shapes
alone), latents, and records of block reconstruction. Libraries and allocators come on top: ``MARGIN`` and ``SCATTERED``.
"""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch
from torch import Tensor, nn

from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.fitting.phase import Needs, phases_of
from dq_toolchain.calibrate.methods.base import Method
from dq_toolchain.calibrate.network.activation_checkpointing import checkpointed
from dq_toolchain.calibrate.network.activation_memory import ActivationMemory, activation_memory_of
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.errors import CalibrationError
from dq_toolchain.toolchain.recipe.sections import Recipe
from dq_toolchain.toolchain.sampler.denoiser import Denoiser

FLOAT = 4
MARGIN = 2**30
SCATTERED = 1.1
"""What the allocator holds for each byte in use: measured with Stable Diffusion 1.5's topology (docs/RESULTS.md)."""


@dataclass(frozen=True)
class Estimate:
    """Bytes: of the weights' size, of activations at their peak, and of trajectories and records on the host."""

    weights: int
    activations: int
    host: int

    def on(self, device: torch.device) -> int:
        """What the device needs; the host's own share counts where the device is the host."""
        used = self.weights + self.activations + (self.host if device.type == "cpu" else 0)
        return int(SCATTERED * used) + MARGIN

    def __str__(self) -> str:
        parts = {
            "weights and their fit": self.weights,
            "activations": self.activations,
            "trajectories and records": self.host,
        }
        return ", ".join(f"{name} {_gib(size)}" for name, size in parts.items())


def check_memory(context: Context, recipe: Recipe, method: Method, reporter: Reporter) -> None:
    """Say what the calibration of a large network needs.

    Raises:
        CalibrationError: it does not fit into what is free; the text says what would.
    """
    if not context.is_large:
        return
    need, free = estimate(context, recipe, method), _free(context.device)
    text = f"calibration needs about {_gib(need.on(context.device))} of {_name(context.device)} ({need}), {_gib(free)} are free"
    if need.on(context.device) <= free:
        reporter.say(text)
        return
    offloaded = estimate(
        context, recipe.model_copy(update={"run": recipe.run.model_copy(update={"offload": True})}), method
    ).on(context.device)
    if recipe.run.offload or offloaded > free:
        hint = "" if recipe.run.offload else f", {_gib(offloaded)} with --offload"
        raise CalibrationError(f"{text}{hint}; lower [calibrate] batch and samples, or take a machine with more memory")
    raise CalibrationError(f"{text}; add --offload, which needs about {_gib(offloaded)}")


def estimate(context: Context, recipe: Recipe, method: Method) -> Estimate:
    """What the recipe's method needs at its most, of one sampler call at a time."""
    size = sum(parameter.numel() for parameter in context.network.parameters())
    one = _of_one_sample(context, recipe.run.offload)
    needs = [phase.needs(context, recipe, one) for phase in phases_of(method.fit, recipe)] or [Needs()]
    weights = size * max(need.per_weight for need in needs) + sum(need.floats for need in needs)
    activations = max(context.rollout_batch * one.forward, *(need.activations for need in needs))
    samples, latent = context.samples.start.shape[0], context.samples.start[0].numel()
    host = (2 * context.table.calls + 1) * samples * latent * FLOAT + sum(need.host for need in needs)
    return Estimate(int(weights) * FLOAT, activations, host)


def _of_one_sample(context: Context, low_memory: bool) -> ActivationMemory:
    """Of one sample, both halves of its guidance included."""
    if context.activation_memory is not None and not low_memory:
        return context.activation_memory
    sample = context.samples.select(slice(0, 1))

    def call(network: nn.Module) -> Tensor:
        return Denoiser(network, context.table, sample.conditioning, context.guidance)(sample.start, 0)

    return activation_memory_of(context.prepared.network, call, checkpointed)


def _free(device: torch.device) -> int:
    return int(psutil.virtual_memory().available if device.type == "cpu" else torch.cuda.mem_get_info(device)[0])


def _name(device: torch.device) -> str:
    return "memory" if device.type == "cpu" else f"the memory of {device}"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
