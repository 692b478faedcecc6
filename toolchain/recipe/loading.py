"""Reads a recipe: defaults, a TOML file and command-line flags, in that order.

A recipe is checked as a whole: one error lists every mistake with its file, line and allowed values. The file that comes with a
model is data of somebody else: it may recommend settings, but no path and nothing of where and how the command runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.disk.reading import read_toml
from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.models.embedded import EMBEDDED
from dq_toolchain.toolchain.recipe.fields import NAMES, settings_of
from dq_toolchain.toolchain.recipe.sections import Recipe, Renamed, TargetSection, with_targets

OF_A_MODEL = ("sampler", "conditioning", "quantize", "calibrate")
"""Sections that a model's own file may have a say in; a path in them is not its to name either."""


def load_recipe(
    path: Path | None,
    flags: Mapping[str, Mapping[str, Any]],
    warn: Callable[[str], None] | None = None,
    *,
    sections: Mapping[str, type[TargetSection]] | None = None,
    target_flags: Mapping[str, Any] | None = None,
    default_target: str | None = None,
) -> Recipe:
    """Defaults, then the model folder's own ``dq.toml``, then the recipe file, then flags.

    Args:
        path: a TOML file, or None.
        flags: section -> key -> value; None values were not given.
        warn: is told what a model's own file sets and may not, which is left out; default: a line on stderr.
        sections: target -> its settings, which become sections of the recipe; whoever may import the targets knows them.
        target_flags: key -> value, for the section of the target that ``[export] target`` names.
        default_target: the one to export to where nothing names one.
    Raises:
        RecipeError: one line with every mistake and its place.
    """
    given = {section: {k: v for k, v in values.items() if v is not None} for section, values in flags.items()}
    own = _read(path) if path is not None else {}
    folder = given.get("model", {}).get("path") or _table(own, "model").get("path") or EMBEDDED
    base_path = (Path(folder) if isinstance(folder, str | Path) else EMBEDDED) / "dq.toml"
    known = with_targets(sections or {})
    base = _recommended(base_path, known, warn or Reporter().warn) if base_path.is_file() else {}
    sources = ((base_path, base), (path, own), (None, given))
    merged: dict[str, Any] = {}
    origin: dict[tuple[str, str], Path | None] = {}
    for source, data in sources:
        for section, values in data.items():
            if not isinstance(values, Mapping):
                merged[section] = values
                origin[section, ""] = source
                continue
            for key, value in values.items():
                table = merged.setdefault(section, {})
                if isinstance(table, dict):
                    table[key] = value
                    origin[section, key] = source
    target = _target(merged, default_target)
    for key, value in _flags_of(target, target_flags or {}, sections or {}).items():
        table = merged.setdefault(target, {})
        if isinstance(table, dict):
            table[key], origin[target, key] = value, None
    try:
        return known.model_validate(merged)
    except ValidationError as error:
        raise RecipeError("; ".join(_mistake(e, origin, known) for e in error.errors())) from None


def _target(merged: dict[str, Any], default: str | None) -> str:
    """The target that is exported to; the default is written into ``merged`` where nothing names one."""
    export = merged.setdefault("export", {}) if default is not None else _table(merged, "export")
    if isinstance(export, dict) and default is not None:
        export.setdefault("target", default)
    return str(_table(merged, "export").get("target", ""))


def _either(names: Sequence[str]) -> str:
    """'a', 'b' or 'c'."""
    return " or ".join(part for part in (", ".join(map(repr, names[:-1])), repr(names[-1])) if part)


def _flags_of(target: str, given: Mapping[str, Any], sections: Mapping[str, type[TargetSection]]) -> dict[str, Any]:
    """The flags that were given. Raises RecipeError for one that only other targets understand."""
    flags = {name: value for name, value in given.items() if value is not None}
    for name in flags if target in sections else ():
        owners = [owner for owner, section in sections.items() if name in {*section.model_fields, *section.RENAMED}]
        if target not in owners:
            known = {setting.key: setting.flag for owner in owners for setting in settings_of(owner, sections[owner])}
            flag, only = known.get(name, f"--{name.replace('_', '-')}"), _either(owners)
            raise RecipeError(f"{flag} is for target {only}, got target {target!r}; leave it out")
    return flags if target in sections else {}


def _recommended(path: Path, known: type[Recipe], warn: Callable[[str], None]) -> dict[str, Any]:
    """Of a model's own file what is its to say; the rest is named and left out. Unknown names stay, to be refused."""
    kept: dict[str, Any] = {}
    left_out: list[str] = []
    for section, values in _read(path).items():
        field = known.model_fields.get(section)
        if field is not None and section not in OF_A_MODEL:
            left_out.append(f"[{section}]")
        elif field is not None and isinstance(values, Mapping):
            options = field.annotation.model_fields  # type: ignore[union-attr]
            paths = [key for key in values if key in options and Path in get_args(options[key].annotation)]
            left_out += [f"[{section}] {key}" for key in paths]
            kept[section] = {key: value for key, value in values.items() if key not in paths}
        else:
            kept[section] = values
    if left_out:
        warn(
            f"{path}: {', '.join(left_out)} left out: a model's own file may set {', '.join(f'[{name}]' for name in OF_A_MODEL)}, "
            "and no paths; give what you want of it as a flag or in --recipe"
        )
    return kept


def _table(data: Mapping[str, Any], section: str) -> Mapping[str, Any]:
    value = data.get(section, {})
    return value if isinstance(value, Mapping) else {}


def _read(path: Path) -> dict[str, Any]:
    return read_toml(path, error=RecipeError, remedy="--recipe takes a TOML file")


def _mistake(error: Any, origin: Mapping[tuple[str, str], Path | None], recipe: type[Recipe]) -> str:
    section, key = (str(part) for part in (*error["loc"], "", "")[:2])
    place = f"[{section}] {key}".strip()
    source = origin.get((section, key), origin.get((section, ""), None))
    if (section, key) not in origin and (section, "") not in origin:
        source = next((s for (sec, _), s in origin.items() if sec == section), None)
    flag = f"--{NAMES.get((section, key), key.replace('_', '-')) or section}"
    where = f"{_locate(source, section, key)} {place}" if source else flag
    if error["type"] == "extra_forbidden":
        if not key:
            return f"{where}: unknown, allowed: {', '.join(recipe.model_fields)}"
        known: Any = recipe.model_fields[section].annotation
        renamed = known.RENAMED.get(key) if issubclass(known, TargetSection) else None
        if renamed is not None:
            return f"{where}: {_renamed(renamed, error['input'], source is None)}"
        return f"{where}: unknown, allowed: {', '.join(known.model_fields)}"
    if error["type"] == "model_type":
        return f"{where}: got {error['input']!r}, input should be a table of settings"
    if error["type"] == "path_type":
        return f"{where}: got {error['input']!r}, input should be a path in quotes"
    return f"{where}: got {error['input']!r}, {error['msg'][0].lower()}{error['msg'][1:]}"


def _renamed(renamed: Renamed, given: object, is_flag: bool) -> str:
    """What to write in the place of an old name."""
    form = "{0} {1}" if is_flag else '{0} = "{1}"'
    name = f"--{renamed.to.replace('_', '-')}" if is_flag else renamed.to
    now = [value for value, old in renamed.values.items() if old == given] or list(renamed.values)
    return f"is called {name} now; write {' or '.join(form.format(name, value) for value in now)}"


def _locate(source: Path, section: str, key: str) -> str:
    name, current = rf"""["']?{re.escape(key)}["']?""", ""
    for number, line in enumerate(source.read_text(encoding="utf-8-sig").splitlines(), 1):
        header = re.match(r"\s*\[+\s*([\w.-]+)\s*\]", line)
        current = header.group(1) if header else current
        whole = header and current in ((section,) if not key else (f"{section}.{key}",))
        if whole or (current == section and not header and key and re.match(rf"\s*{name}\s*=", line)):
            return f"{source}:{number}"
        dotted = rf"(=|\.\s*{name}\s*=)" if key else "[.=]"
        if not header and current == "" and re.match(rf"\s*{re.escape(section)}\s*{dotted}", line):
            return f"{source}:{number}"
    return str(source)
