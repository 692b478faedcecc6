"""Which settings of a recipe decide a calibration, which an artifact records, and which nothing reads."""

from __future__ import annotations

from typing import Any

from dq_toolchain.calibrate.fitting.phase import phases_of
from dq_toolchain.calibrate.methods import effective, resolve
from dq_toolchain.calibrate.methods.base import Method
from dq_toolchain.toolchain.recipe.effort import NARROW
from dq_toolchain.toolchain.recipe.sections import Recipe

BEFORE_THE_FIT = {"method", "samples", "ranges", "percentile", "rounding"}
"""What a method that does not fit over several steps reads of [calibrate]."""


def deciding(recipe: Recipe, method: Method) -> dict[str, Any]:
    """The settings that decide a calibration: those of the phases that the method goes through."""
    settings = recipe.model_dump(
        mode="json",
        include={"sampler", "conditioning", "quantize", "calibrate", "blocks", "run"},
        exclude={"calibrate": {"effort"}, **_left_out(recipe)},
    )
    read = {section for phase in phases_of(method.fit, recipe) for section in phase.sections}
    for section, always in (("calibrate", BEFORE_THE_FIT), ("blocks", ())):
        if section not in read:
            keys = {name.partition(".")[2] for name in read if name.startswith(f"{section}.")} | set(always)
            settings[section] = {key: value for key, value in settings[section].items() if key in keys}
    return {section: values for section, values in settings.items() if values}


def unread(recipe: Recipe) -> str:
    """What the user set of [calibrate] and [blocks] and the calibration does not read, and why; empty: it reads all.

    Args:
        recipe: as it was given, before method and effort fill it in.
    Raises:
        RecipeError: the method is unknown, or what is asked of a phase does not go together.
    """
    method, filled = resolve(recipe.calibrate.method), effective(recipe)
    read = deciding(filled, method)
    found = []
    for section in ("calibrate", "blocks"):
        own, known = getattr(recipe, section), {"effort", *read.get(section, {})}
        left = sorted(own.model_fields_set - known)
        found += [f"[{section}] {key} = {getattr(own, key)}" for key in left if getattr(own, key)]  # 0 asks for nothing
    if not found:
        return ""
    idle = any(phase.is_idle(filled) for phase in method.fit) and found[0].startswith("[calibrate]")
    why = (
        f"there are no iterations, as by default above {NARROW} bits; for a fit set [calibrate] warmup (--warmup), as 400"
        if idle
        else f"{method.name} does not read it here"
    )
    return f"no effect of {', '.join(found)}: {why}"


def recorded(recipe: Recipe) -> dict[str, Any]:
    """What the artifact records: what a calibration is made by, nothing of targets."""
    sections = set(Recipe.model_fields) - {"export", "reference"}
    return recipe.model_dump(mode="json", include=sections, exclude=_left_out(recipe))


def _left_out(recipe: Recipe) -> dict[str, set[str]]:
    """Where the output goes, and settings that are not written unless they are set: artifacts without them stay what they were."""
    found = {"run": {"out"} if recipe.run.parallel_steps > 1 else {"out", "parallel_steps"}}
    found |= {} if recipe.quantize.step_vectors else {"quantize": {"step_vectors"}}
    return found if recipe.model.vae is not None else {**found, "model": {"vae"}}
