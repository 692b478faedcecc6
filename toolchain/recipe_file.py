"""Reads a recipe: defaults, a TOML file and command-line flags, in that order.

A recipe is checked as a whole: one error lists every mistake with its file, line and allowed values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.reading import read_toml
from dq_toolchain.toolchain.recipe import Recipe


def load_recipe(path: Path | None, flags: Mapping[str, Mapping[str, Any]]) -> Recipe:
    """Defaults, then the model folder's own ``dq.toml``, then the recipe file, then flags.

    Args:
        path: a TOML file, or None.
        flags: section -> key -> value; None values were not given.
    Raises:
        RecipeError: one line with every mistake and its place.
    """
    # diffusers takes seconds to import: --help does not wait for it
    from dq_toolchain.toolchain.source import EMBEDDED

    given = {section: {k: v for k, v in values.items() if v is not None} for section, values in flags.items()}
    own = _read(path) if path is not None else {}
    folder = given.get("model", {}).get("path") or _table(own, "model").get("path") or EMBEDDED
    base_path = (Path(folder) if isinstance(folder, str | Path) else EMBEDDED) / "dq.toml"
    base = _read(base_path) if base_path.is_file() else {}
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
                target = merged.setdefault(section, {})
                if isinstance(target, dict):
                    target[key] = value
                    origin[section, key] = source
    try:
        return Recipe.model_validate(merged)
    except ValidationError as error:
        raise RecipeError("; ".join(_mistake(e, origin) for e in error.errors())) from None


def _table(data: Mapping[str, Any], section: str) -> Mapping[str, Any]:
    value = data.get(section, {})
    return value if isinstance(value, Mapping) else {}


def _read(path: Path) -> dict[str, Any]:
    return read_toml(path, error=RecipeError, remedy="--recipe takes a TOML file")


def _mistake(error: Any, origin: Mapping[tuple[str, str], Path | None]) -> str:
    section, key = (str(part) for part in (*error["loc"], "", "")[:2])
    place = f"[{section}] {key}".strip()
    source = origin.get((section, key), origin.get((section, ""), None))
    if (section, key) not in origin and (section, "") not in origin:
        source = next((s for (sec, _), s in origin.items() if sec == section), None)
    where = f"{_locate(source, section, key)} {place}" if source else f"--{key.replace('_', '-') or section}"
    if error["type"] == "extra_forbidden":
        known = Recipe.model_fields if not key else Recipe.model_fields[section].annotation.model_fields  # type: ignore[union-attr]
        return f"{where}: unknown, allowed: {', '.join(known)}"
    if error["type"] == "model_type":
        return f"{where}: got {error['input']!r}, input should be a table of settings"
    if error["type"] == "path_type":
        return f"{where}: got {error['input']!r}, input should be a path in quotes"
    return f"{where}: got {error['input']!r}, {error['msg'][0].lower()}{error['msg'][1:]}"


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
