"""Whether the end of a calibration fits, where text encoders are loaded again and a picture is decoded: said before it starts."""

from __future__ import annotations

import torch

from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.parts.memory import parts_memory
from dq_toolchain.calibrate.prepare.memory import FLOAT, SCATTERED, free_on, gib, held
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.errors import CalibrationError
from dq_toolchain.toolchain.models.architectures import latent_shape
from dq_toolchain.toolchain.recipe.sections import Recipe


def check_parts_memory(context: Context, recipe: Recipe, reporter: Reporter, *, stays: bool) -> None:
    """Say, of a large network or on a GPU, what the parts need of the host's memory.

    Args:
        stays: whether the network's float weights are still there then.
    Raises:
        CalibrationError: it is more than will be free.
    """
    latent = latent_shape(context.model.config)
    need = parts_memory(context.model, recipe, latent)
    if need is None:
        return
    numbers = sum(parameter.numel() for parameter in context.network.parameters())
    calls = context.table.calls + sum(each.table.calls for each in context.samplings)
    integers = 0 if context.spill is not None else numbers
    results = integers + 4 * (calls + 1) * recipe.reference.seeds * torch.Size(latent).numel() * FLOAT
    total = int(SCATTERED * (results + need.peak))
    free = free_on(torch.device("cpu")) + (0 if stays else held(context, recipe))
    text = (
        f"text encoders and decoder need about {gib(total)} of memory at the end (text encoders {gib(need.text)}, then the decoder "
        f"with a picture {gib(need.decoder)}, beside {gib(results)} of results), {gib(free)} are free then"
    )
    if total > free:
        smaller = "--vae with the folder of a smaller decoder (AutoencoderTiny), " if need.decoder > need.text else ""
        raise CalibrationError(
            f"{text}; give {smaller}--model with the network's own folder, --scheduler and --conditioning, for a bundle without "
            "them, or end what else runs"
        )
    if context.activation_memory is not None:
        reporter.say(text)
