"""Targets: one folder each, whose name is what `--target` takes. The modules beside them are what they share.

Nothing else names a target: sections of the recipe, flags, help and lists are made of what the folders hold.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, cast

from dq_toolchain.toolchain.errors import BackendError

if TYPE_CHECKING:
    from dq_toolchain.backends.base import Backend, TargetInfo
    from dq_toolchain.toolchain.recipe.sections import TargetSection

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
