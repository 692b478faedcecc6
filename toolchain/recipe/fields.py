"""A field of a recipe's section in words: what flags, ``dq-toolchain recipe`` and the reference are made of."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from dq_toolchain.toolchain.recipe.sections import Recipe, Section

NAMES = {("model", "path"): "model", ("conditioning", "file"): "conditioning"}
"""Flags that are not called as their key."""

ITEMS: Mapping[type, str] = {str: "texts", int: "whole numbers", float: "numbers"}


@dataclass(frozen=True)
class Setting:
    """One key of the recipe.

    Attributes:
        kind: str, int, float, bool, Path, or tuple for a list.
        choices: the values allowed, where they are listed. lowest, highest: inclusive bounds, None without.
        default: None if the key may be left without a value.
        item: of a list, the kind of its entries, which the bounds are of.
    """

    section: str
    key: str
    kind: type
    choices: tuple[Any, ...]
    lowest: str
    highest: str
    default: Any
    description: str
    item: type = str

    @property
    def flag(self) -> str:
        """What the setting is called on the command line: --name, --no-name for one that is on by default."""
        off = "no-" if self.kind is bool and self.default is True else ""
        return f"--{off}{NAMES.get((self.section, self.key), self.key.replace('_', '-'))}"

    @property
    def allowed(self) -> str:
        """In words: "fp16 | fp32", "2-8", "text"."""
        if self.choices:
            return " | ".join(map(str, self.choices))
        if self.kind is bool:
            return "true | false"
        if self.kind in (int, float):
            return _bounds(self.lowest, self.highest) or {int: "whole number", float: "number"}[self.kind]
        if self.kind is Path:
            return "path"
        if self.kind is not tuple:
            return "text"
        bounds = _bounds(self.lowest, self.highest)
        return f"list of {ITEMS[self.item]}{f', {bounds}' if bounds else ''}"


def _bounds(lowest: str, highest: str) -> str:
    if lowest and highest:
        return f"{lowest} to {highest}"
    return f"{lowest or highest} or {'more' if lowest else 'less'}" if lowest or highest else ""


def settings_of(section: str, kind: type[Section]) -> Iterator[Setting]:
    """The settings of one section, in the order in which they are written."""
    for key, field in kind.model_fields.items():
        yield _setting(section, key, field)


def all_settings(recipe: type[Recipe]) -> Iterator[Setting]:
    """Of every section of a recipe, those of targets included where ``recipe`` has them."""
    for name, field in recipe.model_fields.items():
        assert isinstance(field.annotation, type)
        yield from settings_of(name, field.annotation)


def _setting(section: str, key: str, field: FieldInfo) -> Setting:
    inner = _without_none(field.annotation)
    choices = get_args(inner) if get_origin(inner) is Literal else ()
    origin = type(choices[0]) if choices else get_origin(inner) or inner
    item, of_item = _item(inner) if origin is tuple else (str, ())
    bounds = {name: value for part in (*field.metadata, *of_item) for name, value in _limits(part).items()}
    lowest = f"{bounds['ge']:g}" if "ge" in bounds else f"above {bounds['gt']:g}" if "gt" in bounds else ""
    highest = f"{bounds['le']:g}" if "le" in bounds else f"below {bounds['lt']:g}" if "lt" in bounds else ""
    return Setting(section, key, origin, choices, lowest, highest, field.default, field.description or "", item)


def _item(annotation: Any) -> tuple[type, tuple[Any, ...]]:
    """Kind of a list's entries, and what says their bounds."""
    item = get_args(annotation)[0]
    if get_origin(item) is not Annotated:
        return item, ()
    kind, *metadata = get_args(item)
    return kind, tuple(part for each in metadata for part in getattr(each, "metadata", (each,)))


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType):
        return next(one for one in get_args(annotation) if one is not type(None))
    return annotation


def _limits(part: object) -> Mapping[str, float]:
    found = {name: getattr(part, name, None) for name in ("ge", "gt", "le", "lt")}
    return {name: value for name, value in found.items() if value is not None}
