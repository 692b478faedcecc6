"""What becomes of a LoRA's adapters in a calibration: the network's always, text encoders' where prompts go through them."""

from __future__ import annotations

from typing import Any

from dq_toolchain.calibrate.data.encoders import encoders_of
from dq_toolchain.toolchain.models.architectures import inputs_of
from dq_toolchain.toolchain.models.loading import Model
from dq_toolchain.toolchain.recipe.sections import Recipe


def lora_notes(model: Model, recipe: Recipe) -> list[str]:
    """Lines on what is left out; none without a LoRA."""
    if model.lora is None:
        return []
    encoders, why = _in_use(model, recipe)
    return model.lora.notes(encoders, why)


def lora_record(model: Model, recipe: Recipe) -> dict[str, Any] | None:
    """For the artifact's record; None without a LoRA."""
    return None if model.lora is None else model.lora.record(_in_use(model, recipe)[0])


def _in_use(model: Model, recipe: Recipe) -> tuple[tuple[str, ...], str]:
    """Text encoders that prompts go through, and why others do not."""
    if "encoder_hidden_states" not in inputs_of(model.config):
        return (), "the network takes no text"
    if recipe.conditioning.file is not None:
        return (), "the conditioning is given as a file, whose maker should have added them"
    return encoders_of(model.folder), "the pipeline has no such encoder"
