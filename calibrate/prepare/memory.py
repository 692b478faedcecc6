"""How much memory a calibration needs, said before it starts; what does not fit is refused, with what would.

Counted are tensors: those of the size of the weights, of which a fit holds several, activations (from a run on shapes
alone), latents, and records of block reconstruction. Libraries and allocators come on top: ``MARGIN`` and ``SCATTERED``.
"""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch
from torch import Tensor, nn

from dq_toolchain.calibrate.methods.base import Method
from dq_toolchain.calibrate.network.activation_checkpointing import recomputed
from dq_toolchain.calibrate.network.activation_memory import Live, live_bytes
from dq_toolchain.calibrate.prepare.setup import Setup
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.errors import CalibrationError
from dq_toolchain.toolchain.recipe.sections import Recipe
from dq_toolchain.toolchain.sampler.denoiser import Denoiser

FLOAT = 4
MARGIN = 2**30
SCATTERED = 1.1
"""What the allocator holds for each byte in use: measured with Stable Diffusion 1.5's topology (docs/RESULTS.md)."""
LEARNED = 13.0
"""Floats per weight of a fit that learns all rounding at once: the FP32 weight; the offset, its gradient, Adam's two
moments, average and best; the dequantized weight, what its gradient is made from and that gradient; and copies while the
average is judged."""
NEAREST = 4.0
"""The same without offsets."""
BLOCKS = 2.5
"""Of block reconstruction: the FP32 and the dequantized weight, and integers twice, chosen and packed."""
LEAN = 1.5
"""With ``offload``: the FP32 weight, and integers twice."""
UNIT = 10
"""Floats per weight of the unit that is being reconstructed; it has about three times the weights of the largest layer."""


@dataclass(frozen=True)
class Estimate:
    """Bytes: what is held for weights, activations at their most, and what the host keeps of trajectories and records."""

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


def check_memory(state: Setup, recipe: Recipe, method: Method, reporter: Reporter) -> None:
    """Say what the calibration of a large network needs.

    Raises:
        CalibrationError: it does not fit into what is free; the text says what would.
    """
    if not state.is_large:
        return
    need, free = estimate(state, recipe, method), _free(state.device)
    text = f"calibration needs about {_gib(need.on(state.device))} of {_name(state.device)} ({need}), {_gib(free)} are free"
    if need.on(state.device) <= free:
        reporter.say(text)
        return
    lean = estimate(
        state, recipe.model_copy(update={"run": recipe.run.model_copy(update={"offload": True})}), method
    ).on(state.device)
    if recipe.run.offload or lean > free:
        hint = "" if recipe.run.offload else f", {_gib(lean)} with --offload"
        raise CalibrationError(f"{text}{hint}; lower [calibrate] batch and samples, or take a machine with more memory")
    raise CalibrationError(f"{text}; add --offload, which needs about {_gib(lean)}")


def estimate(state: Setup, recipe: Recipe, method: Method) -> Estimate:
    """What the recipe's method needs at its most, of one sampler call at a time."""
    layers = [parameter.numel() for parameter in state.prepared.network.parameters()]
    one, offload, settings = _live(state, recipe.run.offload), recipe.run.offload, recipe.calibrate
    learned = settings.rounding == "learned" and not offload
    held = {"ranges": 1.0, "blocks": BLOCKS + learned, "accuquant": LEARNED if learned else NEAREST}
    phases = method.fit.split(", ") + (["blocks"] if offload and method.fit == "accuquant" else [])
    weights = sum(layers) * (1.0 if phases == ["ranges"] else LEAN if offload else max(held[phase] for phase in phases))
    weights += UNIT * 3 * max(layers) if "blocks" in phases else 0
    activations = state.rollout_batch * one.forward
    if "accuquant" in phases:
        activations = max(activations, settings.batch * (one.backward + (0 if offload else one.inputs)))
    samples, latent = state.samples.start.shape[0], state.samples.start[0].numel()
    host = (2 * state.table.calls + 1) * samples * latent * FLOAT
    if "blocks" in phases and not offload:
        host += recipe.blocks.rows * one.forward
    return Estimate(int(weights) * FLOAT, activations, host)


def _live(state: Setup, lean: bool) -> Live:
    """Of one sample, both halves of its guidance included."""
    if state.live is not None and not lean:
        return state.live
    sample = state.samples.select(slice(0, 1))

    def call(network: nn.Module) -> Tensor:
        return Denoiser(network, state.table.uncorrected, sample.conditioning, state.guidance)(sample.start, 0)

    return live_bytes(state.prepared.network, call, recomputed)


def _free(device: torch.device) -> int:
    return int(psutil.virtual_memory().available if device.type == "cpu" else torch.cuda.mem_get_info(device)[0])


def _name(device: torch.device) -> str:
    return "memory" if device.type == "cpu" else f"the memory of {device}"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
