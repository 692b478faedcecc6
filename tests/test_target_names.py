"""No file outside a target's folder knows the targets by name: a target that is added needs no other change."""

from __future__ import annotations

import re
from pathlib import Path

from dq_toolchain import backends

ROOT = Path(__file__).parent.parent
PLACES = ("api", "toolchain", "calibrate", "backends/common", "backends/base.py", "backends/programs.py")
BINARY = (".safetensors", ".png", ".pyc")
HISTORY = {
    "toolchain/disk/temporary.py": "names of temporary files as versions before wrote them, which no later target can have"
}
"""Files that may name a target, and why."""


def _files() -> list[Path]:
    found = [path for place in PLACES for path in (ROOT / place, *(ROOT / place).rglob("*"))]
    return [path for path in found if path.is_file() and path.suffix not in BINARY]


def test_no_target_is_named_outside_its_folder() -> None:
    names = re.compile("|".join(backends.names()), re.IGNORECASE)
    hits = {
        f"{path.relative_to(ROOT)}:{number} {line.strip()}"
        for path in _files()
        if str(path.relative_to(ROOT)) not in HISTORY
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if names.search(line)
    }
    assert not hits, "a target's own folder says this better:\n" + "\n".join(sorted(hits))
    assert len(_files()) > 100


def test_no_target_knows_another() -> None:
    for target in backends.names():
        others = re.compile("|".join(rf"backends\.{name}\b" for name in backends.names() if name != target))
        for path in (ROOT / "backends" / target).rglob("*.py"):
            assert not others.search(path.read_text(encoding="utf-8")), f"{path} names another target's module"


def test_what_may_name_targets_does() -> None:
    """An exception that is none any more is taken off the list."""
    for name in HISTORY:
        assert any(target in (ROOT / name).read_text(encoding="utf-8") for target in backends.names()), name
