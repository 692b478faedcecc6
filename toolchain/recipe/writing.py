"""A recipe as text: TOML with every setting and what it means, and the tables of the reference."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from dq_toolchain.toolchain.recipe.fields import Setting, all_settings
from dq_toolchain.toolchain.recipe.sections import Recipe

WIDTH = 100


def to_toml(recipe: Recipe) -> str:
    """Every setting of a recipe with its value, its meaning as a comment; a recipe file that gives the same recipe.

    A setting without a value is a comment too: TOML has no word for it.
    """
    lines = []
    for section, settings in groupby(all_settings(type(recipe)), lambda setting: setting.section):
        lines += ["", f"[{section}]"]
        for setting in settings:
            value = getattr(getattr(recipe, section), setting.key)
            lines += [f"# {text}" for text in textwrap.wrap(f"{setting.description}; {setting.allowed}", WIDTH - 2)]
            lines.append(f"# {setting.key} is not set" if value is None else f"{setting.key} = {toml_value(value)}")
    return "\n".join(lines).lstrip() + "\n"


def toml_value(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, str | Path):
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def reference_tables(recipe: type[Recipe], flags: Iterable[tuple[str, str]]) -> str:
    """Markdown: a table per section, with key, flag, allowed values, default and meaning.

    Args:
        flags: (section, key) of the settings that have a flag.
    """
    with_flag, parts = set(flags), []
    for section, settings in groupby(all_settings(recipe), lambda setting: setting.section):
        rows = [_row(setting, (section, setting.key) in with_flag) for setting in settings]
        parts.append(f"## [{section}]\n\n{_table(('key', 'allowed', 'default', 'flag', 'meaning'), rows)}")
    return "\n".join(parts)


def _row(setting: Setting, has_flag: bool) -> tuple[str, ...]:
    default = "" if setting.default is None else f"`{toml_value(setting.default)}`"
    allowed = setting.allowed.replace(" | ", ", ")
    return f"`{setting.key}`", allowed, default, f"`{setting.flag}`" if has_flag else "", setting.description


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
