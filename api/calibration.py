"""``dq.calibrate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dq_toolchain.api.results import Calibration, OnNote, OnProgress

if TYPE_CHECKING:
    from torch import Tensor

    from dq_toolchain.api.settings import Sections
    from dq_toolchain.toolchain.console.progress import Reporter
    from dq_toolchain.toolchain.models.loading import Model
    from dq_toolchain.toolchain.recipe.sections import Recipe

OF_FILES = {"variant", "lora", "lora_scale", "scheduler"}
"""Settings of [model] that say how a folder is read."""


def calibrate(
    model: object = None,
    *,
    out: str | Path | None = None,
    target: str | None = None,
    scheduler: object = None,
    sample_shape: Sequence[int] | None = None,
    conditioning: Mapping[str, Tensor] | str | Path | None = None,
    unconditional: Mapping[str, Tensor] | None = None,
    prompts: Sequence[str] | str | Path | None = None,
    recipe: str | Path | Sections | Recipe | None = None,
    progress: OnProgress | None = None,
    on_note: OnNote | None = None,
    **settings: Any,
) -> Calibration:
    """Quantize a denoising network: integer weights, and activation parameters per step group. Writes ``out/calibration``.

    A call that was killed, with the same arguments, continues from ``out/calibration.work``.

    Args:
        model: a diffusers folder or hub id; a diffusers pipeline; or any torch.nn.Module with
            ``forward(sample, timestep, **conditioning)`` -> a tensor, a tuple that begins with it, or an object with
            ``.sample``, of the sample's shape (B, C, ...); timestep is (B,) float32. None: the embedded digits model.
            A network in memory is copied to the CPU in float32 and not changed.
        out: folder for the artifact; default: [run] out of ``recipe``, else dq-out.
        target: to export to later: activations that are not set are as it is best calibrated. Default: 8 bits, symmetric.
        scheduler: a diffusers scheduler, or the folder of one; default: the pipeline's own. A module needs one.
        sample_shape: of a module: (C, H, W), or other axes behind the channels, such as (C, T).
        conditioning: keyword tensors of ``forward``, floats or integers, one row per sample, taken in turn; or a safetensors file
            with cond.NAME and uncond.NAME. A mask of text of a diffusers network may be bool, or integers 0 and 1, too.
        unconditional: the same for the second call of classifier-free guidance.
        prompts: texts, or a file with one per line, for models with text encoders.
        recipe: a TOML file, or sections as in it: ``{"quantize": {"weight_bits": 4}}``.
        progress: called with (task, done, total).
        on_note: called with a line about what is noticed or done; what matters of the result is also in its ``notes``.
        settings: any setting of [sampler], [conditioning], [quantize], [calibrate], [run], [model], such as ``steps=20``,
            ``guidance=7.5``, ``weight_bits=4``, ``keep_float=["conv_out"]``, ``device="cpu"``.
    Raises:
        DqError: what was got, what is allowed, what to do. RecipeError, ModelError, SamplerError for what was asked,
            CalibrationError where it cannot be calibrated.
    """
    from dq_toolchain.api import models
    from dq_toolchain.api.reporting import Callbacks
    from dq_toolchain.api.settings import calibration_recipe, merged
    from dq_toolchain.toolchain.errors import RecipeError
    from dq_toolchain.toolchain.models.objects import place_of

    folder = merged(recipe, lambda _line: None).run.out if out is None else Path(out)
    in_memory = model is not None and not isinstance(model, str | Path)
    is_path = isinstance(conditioning, str | Path)
    masks = not models.is_module(model)
    bank = {} if conditioning is None or is_path else models.checked_bank("conditioning", conditioning, masks=masks)  # type: ignore[arg-type]
    other = models.checked_bank("unconditional", unconditional or {}, masks=masks)
    if other and not bank:
        raise RecipeError(
            "unconditional: got tensors without conditioning; give both as tensors, or one file with both"
        )
    given: Model | None = None
    if in_memory:
        given = models.model_in_memory(model, scheduler, sample_shape, bank)
    elif sample_shape is not None:
        raise RecipeError(
            "sample_shape: a model's folder has its size in its config (sample_size); leave sample_shape out"
        )
    if isinstance(prompts, str):
        prompts = Path(prompts)
    fixed: dict[str, dict[str, Any]] = {
        "model": {
            "path": place_of(model) if in_memory else model,
            "scheduler": None if in_memory else models.scheduler_folder(folder, scheduler),
        },
        "conditioning": {
            "file": conditioning if is_path else models.bank_file(folder, bank, other) if bank else None,
            "prompts": prompts
            if prompts is None or isinstance(prompts, Path)
            else models.prompts_file(folder, prompts),
        },
        "run": {"out": folder},
        "export": {"target": target},
    }
    reporter = Callbacks(progress, on_note)
    asked = calibration_recipe(recipe, settings, fixed, reporter.warn)
    if in_memory and (misplaced := OF_FILES & asked.model.model_fields_set):
        raise RecipeError(
            f"{', '.join(sorted(misplaced))}: for models that are read from files, got a {type(model).__name__} in memory; "
            "leave it out"
        )
    found = calibrated(asked, reporter, given)
    return replace(found, notes=tuple(reporter.notes))


def calibrated(recipe: Recipe, reporter: Reporter, given: Model | None = None) -> Calibration:
    """The artifact of a recipe: what ``calibrate`` and the command do with their settings.

    Args:
        given: a model in memory, in the place of the one that [model] names.
    Raises:
        DqError: as ``calibrate``.
    """
    from dq_toolchain import backends
    from dq_toolchain.toolchain.recipe.writing import toml_value

    recipe, taken = backends.suited(recipe)
    if taken:
        values = ", ".join(f"{key} = {toml_value(value)}" for key, value in taken.items())
        reporter.say(f"for target {recipe.export.target}: {values}")
    from dq_toolchain.calibrate import run as stage

    workers = stage.workers_of(recipe)
    if workers.is_first:
        return Calibration(*stage.calibrate(recipe, reporter, given, workers))
    return Calibration(recipe.run.out / stage.FOLDER, stage.assist(recipe, reporter, workers, given), None)
