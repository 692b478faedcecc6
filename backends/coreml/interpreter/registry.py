"""The table of operations that the interpreter knows; each module of operations fills its part of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

Result = Tensor | tuple[Tensor, ...]
Implementation = Callable[..., Result]
"""Called with the operation's inputs by name: tensors, strings, lists of tensors; absent optional inputs are left out."""

Known = TypeVar("Known", bound=Implementation)

OPERATIONS: dict[str, Implementation] = {}


def operation(*names: str) -> Callable[[Known], Known]:
    """Register an implementation under MIL's names for it."""

    def register(implementation: Known) -> Known:
        for name in names:
            OPERATIONS[name] = implementation
        return implementation

    return register


def integers(value: Any) -> list[int]:
    """A tensor or list as Python integers."""
    return [int(v) for v in (value.flatten().tolist() if isinstance(value, Tensor) else value)]


def integer(value: Any) -> int:
    """A one-element tensor or number as a Python integer."""
    return integers(value)[0] if isinstance(value, Tensor) else int(value)
