"""Targets: one folder each, whose name is what `--target` takes. The modules beside them are what they share."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, cast

from dq_toolchain.toolchain.errors import BackendError

if TYPE_CHECKING:
    from dq_toolchain.backends.base import Backend, TargetInfo


def names() -> tuple[str, ...]:
    """Every target, in alphabetical order; nothing is imported."""
    return tuple(
        sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg and module.name != "common")
    )


def _module(name: str) -> Backend:
    if name not in names():
        raise BackendError(f"target must be one of {', '.join(names())}, got {name!r}; see `dq-toolchain targets`")
    return cast("Backend", importlib.import_module(f"{__name__}.{name}"))


def describe(name: str) -> TargetInfo:
    """Facts about a target, whether or not its library is installed. Raises BackendError: unknown name."""
    return _module(name).describe()


def load(name: str) -> Backend:
    """The backend module of a target, ready to lower and run.

    Raises:
        BackendError: unknown name, or its library is not installed.
    """
    module = _module(name)
    info = module.describe()
    if info.version is None:
        raise BackendError(f"target {name!r} needs {info.library}; install it with: {info.install}")
    return module
