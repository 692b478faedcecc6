"""The JSON schemas of what crosses to the device and back: used by the host and by the tests of every device program."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MOST_FAULTS = 100
"""Of a file that is wrong everywhere; the first of so many is named."""


@functools.cache
def _schema(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((Path(__file__).parent / f"{name}.schema.json").read_text(encoding="utf-8"))
    return loaded


@functools.cache
def _validator(name: str) -> Any:
    """A validator to which 1.0 is no integer: it is not to the programs on devices either."""
    import jsonschema

    base = jsonschema.Draft202012Validator
    whole = base.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    )
    return jsonschema.validators.extend(base, type_checker=whole)(_schema(name))


def first_fault(name: str, data: Mapping[str, Any]) -> str | None:
    """The first thing wrong with a JSON object, with its place; None if it is valid.

    Args:
        name: "report", "bundle" or "calibration".
    """
    errors = []
    for error in itertools.islice(_validator(name).iter_errors(dict(data)), MOST_FAULTS):
        if error.validator == "maxItems":  # its items, perhaps millions, are not looked at
            errors = [error]
            break
        errors.append(error)
    if not errors:
        return None
    first = min(errors, key=lambda error: list(map(str, error.absolute_path)))
    place = ".".join(map(str, first.absolute_path))[:200] or f"the {name}"
    if first.validator == "maxItems":
        return f"{place}: {len(first.instance):,} items, allowed are at most {first.validator_value:,}"
    text = " ".join(first.message.split())
    return f"{place}: {text if len(text) < 200 else text[:200] + '...'}"
