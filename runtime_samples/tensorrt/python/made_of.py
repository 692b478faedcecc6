"""What an engine is made of: build_engines.py writes it beside the plan, and it must be what the bundle holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from errors import Refused

WEIGHTS, SUFFIX = "weights.bin", ".made_of"
BUILD = "build it on this device with: python3 build_engines.py, in the bundle's folder"


def made_of(name: str, files: Mapping[str, str]) -> str:
    """SHA-256 and name of NAME.onnx and of the weights beside it, a line each, of the bundle's files."""
    graph, places = f"{name}.onnx", [(*file.rpartition("/")[::2], file) for file in sorted(files)]
    folders = {folder for folder, last, _ in places if last == graph}
    own = [file for folder, last, file in places if folder in folders and last in (graph, WEIGHTS)]
    return "".join(f"{files[file]}  {file}\n" for file in own)


def expect_own(plan: Path, files: Mapping[str, str]) -> None:
    """Raise Refused for an engine that was made of other files: it computes another network under the same name."""
    if not plan.exists():
        raise Refused(f"{plan} is missing; {BUILD}")
    path = plan.with_suffix(SUFFIX)
    try:
        found = path.read_bytes()
    except OSError as error:
        raise Refused(
            f"it is not known what {plan.name} was made of: cannot read {path}: {error.strerror}; {BUILD}; a bundle of version 0.1 "
            "has no such file, export it again"
        ) from error
    wanted = made_of(plan.stem, files)
    if not wanted or found != wanted.encode():
        raise Refused(f"{plan.name} was not made of the graph and weights of this bundle; {BUILD}")
