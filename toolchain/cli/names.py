"""Names of targets and methods without importing any: for a refusal at once, and for the shell to complete."""

from __future__ import annotations

import ast
import functools
from importlib.util import find_spec
from pathlib import Path

from dq_toolchain import backends


def complete_targets(incomplete: str) -> list[str]:
    """Targets that begin so."""
    return [name for name in backends.names() if name.startswith(incomplete)]


def complete_methods(incomplete: str) -> list[str]:
    """Methods that begin so, behind those already joined by '+'."""
    before, joint, last = incomplete.rpartition("+")
    return [f"{before}{joint}{name}" for name in method_names() if name.startswith(last)]


def complete_method_list(incomplete: str) -> list[str]:
    """The same behind a comma."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in complete_methods(last)]


@functools.cache
def method_names() -> tuple[str, ...]:
    """What ``--method`` takes, AccuQuant first, as the methods' files say: they import torch, their text does not.

    A method's name is the first argument of a call in ``METHODS``, or of the call that a name in it was assigned.
    """
    package = find_spec("dq_toolchain.calibrate")
    assert package is not None
    assert package.submodule_search_locations
    found: list[str] = []
    for path in sorted(Path(package.submodule_search_locations[0], "methods").glob("*.py")):
        found += _names_in(ast.parse(path.read_text(encoding="utf-8")))
    return tuple(sorted(found, key=lambda name: (name != "accuquant", name)))


def _names_in(module: ast.Module) -> list[str]:
    values = {
        target.id: each.value
        for each in module.body
        if isinstance(each, ast.Assign)
        for target in each.targets
        if isinstance(target, ast.Name)
    }
    methods = values.get("METHODS")
    found = []
    for element in methods.elts if isinstance(methods, ast.Tuple) else ():
        call = values.get(element.id) if isinstance(element, ast.Name) else element
        if isinstance(call, ast.Call) and call.args and isinstance(call.args[0], ast.Constant):
            found.append(str(call.args[0].value))
    return found
