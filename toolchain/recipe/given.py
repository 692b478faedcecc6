"""What a user gives for a setting, brought into the form that its checks read: paths of models, lists with commas, widths."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field


def model_path(given: Any) -> Any:
    """What names a model, as a path: ./owner/name stays one, where ``Path`` would make a hub's owner/name of it."""
    if isinstance(given, str) and given.startswith(("./", ".\\")):
        return Path(given) if Path(given).exists() else Path(given).absolute()
    return given


def separated(given: Any) -> Any:
    """What a flag lists with commas, as numbers; what is none stays text, to be refused."""
    return [_number(part.strip()) for part in given.split(",")] if isinstance(given, str) else given


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


Steps = Annotated[tuple[Annotated[int, Field(ge=1, le=1000)], ...], BeforeValidator(separated)]
Scales = Annotated[tuple[Annotated[float, Field(ge=0, le=50)], ...], BeforeValidator(separated)]
"""Lists in a recipe, text with commas as a flag."""


def known_width(given: Any) -> Any:
    """Says more of a width between 8 and 16 bits than that it is not allowed."""
    if type(given) is int and 8 < given < 16:
        raise ValueError("no device has integers between 8 and 16 bits; take 16, or 8 and fewer")
    return given
