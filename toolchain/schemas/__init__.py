"""The JSON schemas of what crosses to the device and back: used by the host and by the tests of every device program."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


@functools.cache
def _schema(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((Path(__file__).parent / f"{name}.schema.json").read_text(encoding="utf-8"))
    return loaded


def first_fault(name: str, data: Mapping[str, Any]) -> str | None:
    """The first thing wrong with a JSON object, with its place; None if it is valid. ``name``: "report" or "bundle"."""
    import jsonschema

    found = jsonschema.Draft202012Validator(_schema(name)).iter_errors(dict(data))
    errors = sorted(found, key=lambda error: list(map(str, error.absolute_path)))
    if not errors:
        return None
    place = ".".join(map(str, errors[0].absolute_path)) or f"the {name}"
    text = " ".join(errors[0].message.split())
    return f"{place}: {text if len(text) < 200 else text[:200] + '...'}"
