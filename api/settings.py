"""From keyword settings to a recipe: they are called as in the recipe's file, and as the command line's flags."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dq_toolchain import backends
from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.recipe.loading import load_recipe
from dq_toolchain.toolchain.recipe.sections import ExportSection, Recipe, TargetSection

Sections = Mapping[str, Mapping[str, Any]]
Given = str | Path | Sections | Recipe | None
"""A TOML file, sections as in it, or a whole recipe."""
CALIBRATION = ("sampler", "conditioning", "quantize", "calibrate", "run", "model", "reference", "blocks")
"""Sections whose keys are settings of ``calibrate``. Where two have a key (``steps``), the first one means it, as on the command
line; the other is set through ``recipe``."""
ARGUMENTS = {"path", "file", "prompts", "out", "scheduler"}
"""Keys that are arguments of their own."""


def calibration_recipe(
    recipe: Given,
    settings: Mapping[str, Any],
    fixed: Sections,
    warn: Callable[[str], None] = lambda _line: None,
) -> Recipe:
    """Defaults, the model's own recommendations, the recipe, settings and arguments, each over the one before.

    Args:
        settings: key -> value. fixed: section -> key -> value, None of what was not given.
        warn: is told what of the model's own recommendations is left out.
    Raises:
        RecipeError: a key is unknown or a value not allowed; one line with every mistake.
    """
    places = {key: section for section in reversed(CALIBRATION) for key in _keys(section)}
    _check(settings, [key for key in places if key not in ARGUMENTS])
    flat: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        flat.setdefault(places[key], {})[key] = value
    return merged(recipe, warn, flat, fixed)


def target_settings(
    recipe: Given, target: str, settings: Mapping[str, Any], export: Mapping[str, Any] | None = None
) -> tuple[TargetSection, ExportSection]:
    """The settings of an export: the target's own section of the recipe, keywords over it, and [export].

    Args:
        settings: of the target. export: of [export]; None values were not given.
    Raises:
        RecipeError: the target has no such setting, or a value is not allowed.
    """
    section = backends.settings(target)
    renamed = [key for key in settings if key in section.RENAMED]  # the recipe says what they are called now
    _check(settings, [*section.model_fields, *renamed], f" of target {target!r}")
    found = merged(recipe, lambda _line: None, {target: settings}, {"export": {**(export or {}), "target": target}})
    own: TargetSection = getattr(found, target)
    return own, found.export


def merged(recipe: Given, warn: Callable[[str], None], *layers: Sections) -> Recipe:
    """The recipe with layers over it, later ones first."""
    path = Path(recipe) if isinstance(recipe, str | Path) else None
    if isinstance(recipe, Recipe):
        base: Sections = recipe.model_dump(exclude_unset=True)
    else:
        base = recipe if isinstance(recipe, Mapping) else {}
    flags: dict[str, dict[str, Any]] = {}
    for layer in (base, *layers):
        for section, values in layer.items():
            if not isinstance(values, Mapping):
                raise RecipeError(f"recipe: {section} is {str(values)[:60]!r}, allowed is a table of settings")
            flags.setdefault(section, {}).update({key: value for key, value in values.items() if value is not None})
    return load_recipe(path, flags, warn, sections=backends.sections())


def _keys(section: str) -> list[str]:
    model = Recipe.model_fields.get(section)
    return [] if model is None else list(model.annotation.model_fields)  # type: ignore[union-attr]


def _check(settings: Mapping[str, Any], allowed: list[str], of: str = "") -> None:
    unknown = [key for key in settings if key not in allowed]
    if unknown:
        raise RecipeError(
            f"unknown setting{of}: {', '.join(unknown)}; allowed are {', '.join(sorted(allowed)) or 'none'}"
        )
