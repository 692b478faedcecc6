"""What an engine is made of: its graph and the weights beside it, by the hashes that bundle.json has of them.

``engines/NAME.plan`` is built from the file NAME.onnx of the bundle, in whatever folder, and from the weights.bin in the same
folder. ``engines/NAME.made_of`` says so: a line for each of the two files, in the order of their names, as ``sha256sum`` prints
it. An engine of other files computes another network under the same name, so the programs compare the text and refuse it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

BUNDLE, WEIGHTS, SUFFIX = "bundle.json", "weights.bin", ".made_of"
BLOCK = 1 << 20


def listed_files(bundle: Path) -> dict[str, str]:
    """SHA-256 by name of the files of a bundle. Raises OSError, ValueError: bundle.json is missing or damaged."""
    content = json.loads((bundle / BUNDLE).read_text(encoding="utf-8"))
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not all(isinstance(digest, str) for digest in files.values()):
        raise ValueError("files must be an object of SHA-256 by file name")
    return files


def made_of(name: str, files: Mapping[str, str]) -> str:
    """What NAME.made_of holds for an engine of these files. Raises ValueError: none of them is NAME.onnx."""
    graph, places = f"{name}.onnx", [(*file.rpartition("/")[::2], file) for file in sorted(files)]
    folders = {folder for folder, last, _ in places if last == graph}
    if not folders:
        raise ValueError(f"files list no {graph}")
    own = [file for folder, last, file in places if folder in folders and last in (graph, WEIGHTS)]
    return "".join(f"{files[file]}  {file}\n" for file in own)


def is_made_of(plan: Path, wanted: str) -> bool:
    """Whether the file beside a plan says what ``made_of`` gives."""
    try:
        return plan.with_suffix(SUFFIX).read_bytes() == wanted.encode()
    except OSError:
        return False


def first_changed(bundle: Path, wanted: str) -> str | None:
    """The first file whose content is another than ``made_of`` says, None if there is none; what is missing is left to the builder.

    Raises:
        OSError: a file cannot be read.
    """
    for line in wanted.splitlines():
        digest, name = line.split("  ", 1)
        if (bundle / name).exists() and _sha256(bundle / name) != digest:
            return name
    return None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
