"""Targets: one folder each, whose name is what `--target` takes. The modules beside them are what they share.

Nothing else names a target: sections of the recipe, flags, help and lists are made of what the folders hold.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from dq_toolchain.toolchain.errors import BackendError, RecipeError

if TYPE_CHECKING:
    from dq_toolchain.backends.base import Backend, TargetInfo
    from dq_toolchain.toolchain.recipe.sections import Recipe, TargetSection

DEFAULT = "executorch"
"""Where neither a flag nor a recipe names a target."""


def names() -> tuple[str, ...]:
    """Every target, in alphabetical order; nothing is imported."""
    return tuple(
        sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg and module.name != "common")
    )


def _module(name: str, part: str = "") -> object:
    if name not in names():
        raise BackendError(f"target must be one of {', '.join(names())}, got {name!r}; see `dq-toolchain targets`")
    return importlib.import_module(f"{__name__}.{name}{part}")


def describe(name: str) -> TargetInfo:
    """Facts about a target, whether or not its library is installed. Raises BackendError: unknown name."""
    return cast("Backend", _module(name)).describe()


def suited(recipe: Recipe) -> tuple[Recipe, dict[str, Any]]:
    """The recipe for the target that it names: of [quantize] what nobody set is as that target is best calibrated.

    Returns:
        The recipe, and what was set for the target: setting -> value, without what is the default anyway.
    Raises:
        BackendError: unknown target. RecipeError: the target takes no such settings together; said before any work.
    """
    name = recipe.export.target
    if name is None:
        return recipe, {}
    own, forms = recipe.quantize, describe(name).forms
    given = {key: getattr(own, key) for key in own.model_fields_set}
    form = next((f for f in forms if all(given[key] in f[key] for key in given if key in f)), None)
    if form is None:
        raise RecipeError(
            f"target {name!r}: got {_settings(given, {key for each in forms for key in each})}, allowed are "
            f"{'; or '.join(_form(each) for each in forms)}; change it, or leave it out for what suits the target"
        )
    taken = {key: values[0] for key, values in form.items() if key not in given and values[0] != getattr(own, key)}
    return recipe.model_copy(update={"quantize": own.model_copy(update=taken)}), taken


def _settings(values: Mapping[str, Any], keys: Collection[str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if key in keys)


def _form(form: Mapping[str, Sequence[Any]]) -> str:
    return ", ".join(f"{key} {' or '.join(map(str, values))}" for key, values in form.items())


def settings(name: str) -> type[TargetSection]:
    """The class of a target's settings, whether or not its library is installed. Raises BackendError: unknown name."""
    return cast("type[TargetSection]", vars(_module(name, ".settings"))["Settings"])


def sections() -> dict[str, type[TargetSection]]:
    """Target -> its settings: the sections that ``load_recipe`` takes beside those of the calibration."""
    return {name: settings(name) for name in names()}


def load(name: str) -> Backend:
    """The backend module of a target, ready to lower and run.

    Raises:
        BackendError: unknown name, or its library is not installed.
    """
    module = cast("Backend", _module(name))
    info = module.describe()
    if info.version is None:
        raise BackendError(f"target {name!r} needs {info.library}; install it with: {info.install}")
    return module
