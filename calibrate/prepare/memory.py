"""How much memory a calibration needs, said before it starts; what does not fit runs in parts or is refused, with what would.

Counted are tensors: those of the size of the weights, of which a fit holds several, activations (from a run on shapes
alone), latents, and records of block reconstruction. Libraries and allocators come on top: ``LIBRARIES``, ``MARGIN`` and
``SCATTERED``.
Weights in pages of files are not counted on the host: the system drops such pages if memory is short, and reads them again.
With ``offload`` on a GPU, weights of blocks count on the host, where they are pinned, and two blocks on the GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import psutil
import torch
from torch import Tensor, nn

from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.fitting.memory import AT_WORK, FINISHED, HOMES, RESIDENT, SPILLED
from dq_toolchain.calibrate.fitting.phase import Needs, phases_of
from dq_toolchain.calibrate.fitting.run import check_workers
from dq_toolchain.calibrate.methods import effective
from dq_toolchain.calibrate.methods.base import Method
from dq_toolchain.calibrate.network.activation_checkpointing import checkpointed, outermost_blocks
from dq_toolchain.calibrate.network.activation_memory import ActivationMemory, activation_memory_of
from dq_toolchain.calibrate.network.streaming import streamed_tensors
from dq_toolchain.calibrate.prepare.step_vectors import check_step_vectors
from dq_toolchain.calibrate.work.workers import ALONE, Workers
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.errors import CalibrationError, RecipeError
from dq_toolchain.toolchain.recipe.sections import Recipe
from dq_toolchain.toolchain.sampler.denoiser import Denoiser

FLOAT = 4
LIBRARIES = 2**29
"""Of a calibration on the host: measured with networks of 0.5 to 4 G parameters (docs/RESULTS.md)."""
MARGIN = 2**30
"""Of a GPU, with its context, and of the host beside it. It was not measured."""
SCATTERED = 1.1
"""What the allocator holds for each byte in use: measured with Stable Diffusion 1.5's topology (docs/RESULTS.md)."""
SHARE = 4
"""Of a GPU's memory, the part that activations may take in passes without gradient: a quarter."""


@dataclass(frozen=True)
class Estimate:
    """Bytes: of the weights' size, of activations at their peak, and of trajectories and records on the host.

    Attributes:
        pinned: of weights that a GPU is streamed from the host; not counted in ``weights``.
        in_pages: of weights that the host reads from files; not counted in ``weights``.
    """

    weights: int
    activations: int
    host: int
    pinned: int = 0
    in_pages: int = 0

    def on(self, device: torch.device) -> int:
        """What the device needs; the host's own share counts where the device is the host."""
        used = self.weights + self.activations + (self.host if device.type == "cpu" else 0)
        return int(SCATTERED * used) + (LIBRARIES if device.type == "cpu" else MARGIN)

    @property
    def on_host(self) -> int:
        """What the host of a GPU needs. Pinned memory is neither scattered nor swapped out."""
        return self.pinned + int(SCATTERED * self.host) + MARGIN

    def __str__(self) -> str:
        parts = {
            "two blocks, and their fit"
            if self.pinned
            else "integers and their fit"
            if self.in_pages
            else "weights and their fit": self.weights,
            "activations": self.activations,
            "trajectories and records": self.host,
        }
        read = f"; {gib(self.in_pages)} of weights are read from disk" if self.in_pages else ""
        return ", ".join(f"{name} {gib(size)}" for name, size in parts.items()) + read


def check_memory(context: Context, recipe: Recipe, method: Method, reporter: Reporter) -> Context:
    """Say what the calibration needs, of a large network or on a GPU; an iteration of the fit that does not fit will run in parts.

    Returns:
        The context, with ``gradient_batch`` where that is so.
    Raises:
        CalibrationError: it does not fit into what is free; the text says what would.
    """
    if context.activation_memory is None:
        return context
    device, free = context.device, free_on(context.device) + held(context, recipe)
    need = estimate(context, recipe, method)
    text = f"calibration needs about {gib(need.on(device))} of {_name(device)} ({need}), {gib(free)} are free"
    if need.on(device) <= free:
        reporter.say(f"{text}{_say_batch(context)}")
        _check_host(context, need, reporter)
        return context
    if estimate(context, recipe, method, in_parts=True).on(device) <= free:
        batch = _gradient_batch(context, recipe, method, free)
        reporter.say(
            f"{text}: iterations run in parts of {batch} sample{'s' if batch > 1 else ''} a step, whose gradients are "
            f"summed{_say_batch(context)}"
        )
        _check_host(context, need, reporter)
        return replace(context, gradient_batch=batch)
    tried = []
    for change, other in _smaller(context, recipe, method):
        smaller = estimate(context, other, method, in_parts=True)
        size = gib(smaller.on(device))
        if smaller.on(device) <= free:
            host = f" and {gib(smaller.on_host)} of the host's memory" if smaller.pinned else ""
            raise CalibrationError(f"{text}; add {change}, which needs about {size}{host}")
        tried.append(f", {size} with {change}")
    raise CalibrationError(
        f"{text}{''.join(tried)}; lower [calibrate] samples and [blocks] rows, or take a machine with more memory"
    )


def _check_host(context: Context, need: Estimate, reporter: Reporter) -> None:
    """Of a GPU. Raises CalibrationError."""
    if context.device.type == "cpu":
        return
    pinned = 0 if context.streaming is None else context.streaming.pinned
    more, free = need.on_host - pinned, free_on(torch.device("cpu"))
    of_that = f", {gib(need.pinned)} of it pinned for the weights ({gib(pinned)} are already)" if need.pinned else ""
    text = f"calibration needs about {gib(need.on_host)} of the host's memory{of_that}, {gib(free)} are free"
    if more <= free:
        if need.pinned:
            reporter.say(text)
        return
    hint = "lower [calibrate] samples" if need.host > need.pinned else "end what else runs there"
    raise CalibrationError(f"{text}; {hint}, or take a host with more memory")


def estimate(context: Context, recipe: Recipe, method: Method, *, in_parts: bool = False) -> Estimate:
    """What the recipe's method needs at its most, of one sampler call at a time.

    Args:
        in_parts: iterations run sample by sample.
    """
    size = sum(parameter.numel() for parameter in context.network.parameters())
    blocks = _blocks(context.network) if recipe.run.offload and context.device.type != "cpu" else [0]
    one = _of_one_sample(context, recipe.run.offload)
    needs = [phase.needs(context, recipe, one) for phase in phases_of(method.fit, recipe)] or [Needs()]
    on_host = context.device.type == "cpu"
    per_weight = max(FINISHED if on_host else 0.0, *(need.per_weight for need in needs))
    per_weight -= SPILLED if on_host and recipe.run.offload else 0.0
    read = in_pages(context, recipe) if on_host else 0
    staying = (size - sum(blocks)) * per_weight - read
    rolled = min(context.rollout_batch, len(context.samples)) * one.forward
    made = {need: max(rolled, need.least if in_parts else need.activations) for need in needs}
    if on_host:  # what a phase had is free for the next
        most = max(needs, key=lambda need: need.floats * FLOAT + made[need])
        floats, activations = most.floats, made[most]
    else:
        floats, activations = sum(need.floats for need in needs), max(made.values())
    weights = staying + (RESIDENT + AT_WORK) * max(blocks) + floats
    samples, latent = context.samples.start.shape[0], context.samples.start[0].numel()
    host = (2 * context.table.calls + 1) * samples * latent * FLOAT + sum(need.host for need in needs)
    return Estimate(int(weights) * FLOAT, activations, host, int(HOMES * sum(blocks)) * FLOAT, read * FLOAT)


def in_pages(context: Context, recipe: Recipe) -> int:
    """Parameters of the network that lie in pages of files on the host: with ``offload`` all that were read from files."""
    if recipe.run.offload and context.model.in_pages:
        return sum(parameter.numel() for parameter in context.network.parameters())
    found = context.model.in_pages
    return sum(parameter.numel() for name, parameter in context.network.named_parameters() if found.get(name, False))


def held(context: Context, recipe: Recipe) -> int:
    """Bytes of the network's weights that the host holds already, in memory that it cannot drop. The estimate counts them, and what
    is free does not. Nothing with ``offload``, which keeps weights in files, and nothing of a GPU, see ``free_on``."""
    if context.device.type != "cpu" or context.spill is not None:
        return 0
    weights = sum(parameter.numel() for parameter in context.network.parameters())
    return FLOAT * (weights - in_pages(context, recipe))


def _blocks(network: nn.Module) -> list[int]:
    """Weights of each block that are streamed; of a network without blocks one number, 0."""
    return [sum(tensor.numel() for tensor in streamed_tensors(block)) for block in outermost_blocks(network)] or [0]


def room_on(device: torch.device, workers: Workers = ALONE) -> int | None:
    """Bytes that activations may take on a GPU in passes without gradient: its SHARE, or half of what is free if that is
    less. None of other devices.

    Args:
        workers: processes that must have the same batches: what the one with the least has room for.
    """
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    room = max(0, min(total // SHARE, (free - MARGIN) // 2))
    return -int(workers.largest(torch.tensor(-room, dtype=torch.int64)))


def _gradient_batch(context: Context, recipe: Recipe, method: Method, free: int) -> int:
    """Samples of one step whose activations have room beside everything else."""
    least = estimate(context, recipe, method, in_parts=True)
    one = _of_one_sample(context, recipe.run.offload)
    used = least.on(context.device) - int(SCATTERED * least.activations)
    each = one.backward + (0 if recipe.run.offload else one.inputs)
    return max(1, int((free - used) / SCATTERED) // each)


def _smaller(context: Context, recipe: Recipe, method: Method) -> Iterator[tuple[str, Recipe]]:
    """What can be changed to need less, and the recipe with it as it is then calibrated; without what would be refused."""
    for change, changed in _changes(recipe):
        other = effective(changed)
        try:
            check_step_vectors(other, method)
            check_workers(method.name, phases_of(method.fit, other), other, context.workers, context.step_groups)
        except RecipeError:
            continue
        yield change, other


def _changes(recipe: Recipe) -> Iterator[tuple[str, Recipe]]:
    exact = recipe.model_copy(update={"calibrate": recipe.calibrate.model_copy(update={"gradient": "adjoint"})})
    is_full, several = recipe.calibrate.gradient == "full", recipe.calibrate.horizon > 1
    if is_full and several:
        yield "--gradient adjoint", exact
    if not recipe.run.offload:
        run = {"run": recipe.run.model_copy(update={"offload": True})}
        yield "--offload", recipe.model_copy(update=run)
        if is_full and (several or recipe.quantize.step_vectors):
            yield "--offload --gradient adjoint", exact.model_copy(update=run)


def _say_batch(context: Context) -> str:
    """On a GPU its size decides how many trajectories are run at once."""
    return "" if context.room is None else f"; without gradient {context.rollout_batch} samples run at once"


def _of_one_sample(context: Context, low_memory: bool) -> ActivationMemory:
    """Of one sample, both halves of its guidance included."""
    if context.activation_memory is not None and not low_memory:
        return context.activation_memory
    sample = context.samples.select(slice(0, 1))

    def call(network: nn.Module) -> Tensor:
        return Denoiser(network, context.table, sample.conditioning, context.guidance)(sample.start, 0)

    return activation_memory_of(context.network, call, checkpointed, results=context.prepared.has_results)


def free_on(device: torch.device) -> int:
    """Bytes; of a GPU also what this process holds there, the network that was put there included, which the estimate counts."""
    if device.type == "cpu":
        return int(psutil.virtual_memory().available)
    return int(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))


def _name(device: torch.device) -> str:
    return "memory" if device.type == "cpu" else f"the memory of {device}"


def gib(size: int) -> str:
    """In words."""
    return f"{size / 2**30:.1f} GiB"
