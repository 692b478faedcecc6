"""The calibration methods, one file each: the file's ``METHODS`` are what it offers to ``--method``.

``accuquant+tac`` is AccuQuant with what is TAC's own on top.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from functools import cache, reduce
from typing import Any

from dq_toolchain.calibrate.methods.base import Method, add
from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.recipe import effort
from dq_toolchain.toolchain.recipe.sections import Recipe

DEFAULT = "accuquant"

SHARED = ("base", "corrections", "groups")
"""Modules here that are no method."""


@cache
def _all() -> dict[str, Method]:
    return {method.name: method for method in _found()}


def _found() -> Iterator[Method]:
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in SHARED):
        yield from importlib.import_module(f"{__name__}.{module}").METHODS


def names() -> list[str]:
    """What ``--method`` takes, AccuQuant first."""
    return sorted(_all(), key=lambda name: (name != DEFAULT, name))


def resolve(name: str) -> Method:
    """The method of a name, or of several joined by "+".

    Raises:
        RecipeError: a name is unknown or given twice, or the methods do not go together.
    """
    parts = [part.strip() for part in name.split("+")]
    for part in parts:
        if part not in _all():
            raise RecipeError(
                f"--method: got {part!r}, allowed are {', '.join(names())}, or several joined by '+'; choose one"
            )
    if len(set(parts)) < len(parts):
        raise RecipeError(f"--method: got {name!r}, which names a method twice; name each once")
    return reduce(add, (_all()[part] for part in parts[1:]), _all()[parts[0]].whole())


def with_settings(recipe: Recipe, method: Method, *, as_published: bool = False) -> Recipe:
    """The recipe with the method's settings wherever it did not set its own; ``as_published``: with all of them."""
    changed: dict[str, Any] = {}
    for section, values in method.settings.items():
        own = getattr(recipe, section)
        left = {key: value for key, value in values.items() if as_published or key not in own.model_fields_set}
        changed[section] = own.model_copy(update=left)
    return recipe.model_copy(update=changed)


def effective(recipe: Recipe, *, as_published: bool = False) -> Recipe:
    """The recipe as it is calibrated: what the user set, then the method's settings, then those of bits and effort.

    Args:
        as_published: the method's settings win over the user's.
    Raises:
        RecipeError: the method is unknown.
    """
    method = resolve(recipe.calibrate.method)
    return effort.effective(with_settings(recipe, method, as_published=as_published))
