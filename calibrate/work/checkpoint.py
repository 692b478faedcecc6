"""Where a calibration stands, on disk: one safetensors file, replaced atomically, never a pickle.

A run started again with what decides the stage unchanged (``identity``) continues from it and ends in the bit-identical
artifact; anything else starts afresh. Names of sites and layers go with it and are compared, so that a column never becomes
another site's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from dq_toolchain.toolchain.disk.files import read_metadata, read_tensors_and_metadata, write_bytes, write_tensors
from dq_toolchain.toolchain.disk.temporary import sweep
from dq_toolchain.toolchain.errors import ArtifactError

SECONDS_BETWEEN = 60.0
CHEAP = 3.0
"""Seconds that a save may take without being made less often: the checkpoint of a large network has many gigabytes."""
DIGITS = 16
"""Of the identity, in a file's name."""
README = "README.txt"
ABOUT = b"Checkpoints of an unfinished calibration; the same command continues from them.\n"
OURS = re.compile(rf"([a-z_]+-)?[a-z]+-[0-9a-f]{{{DIGITS}}}(-\d+)?\.safetensors")


def fingerprint(*parts: object) -> str:
    """sha256 over the JSON of everything that decides the result."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


class CheckpointFile:
    """One named checkpoint in the work folder, valid for one fingerprint and one list of names only."""

    def __init__(self, path: Path, identity: str, writes: bool = True, names: Sequence[str] = ()) -> None:
        """
        Args:
            writes: False for all but one of several processes, which load what that one saves.
            names: of the sites and layers that its tensors belong to, in order.
        """
        self.path, self.identity, self.writes, self.names = path, identity, writes, tuple(names)
        self._last, self._cost = time.monotonic(), 0.0

    @classmethod
    def of(
        cls, folder: Path, stage: str, identity: str, writes: bool = True, names: Sequence[str] = ()
    ) -> CheckpointFile:
        """The stage's file in a folder of checkpoints, named after what decides it."""
        return cls(folder / f"{stage}-{identity[:DIGITS]}.safetensors", identity, writes, names)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and state, or None when there is nothing to continue from (absent, damaged, of another identity or of
        other names)."""
        if not self.path.is_file():
            return None
        try:
            tensors, metadata = read_tensors_and_metadata(self.path, "")
            state, names = json.loads(metadata["state"]), json.loads(metadata["names"])
        except (ArtifactError, KeyError, ValueError, RecursionError):
            return None
        if metadata.get("identity") != self.identity or names != list(self.names) or not isinstance(state, dict):
            return None
        return tensors, state

    def save(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Replace the checkpoint. Raises ToolchainError (e.g. full disk); the previous one then stays."""
        begin = time.monotonic()
        if self.writes:
            about = {"identity": self.identity, "names": json.dumps(self.names), "state": json.dumps(state)}
            write_tensors(self.path, tensors, about)
        self._last = time.monotonic()
        self._cost = self._last - begin

    def part(self, number: int) -> CheckpointFile:
        """The checkpoint of one part of the work, in a file of its own: what is done is not written again."""
        return CheckpointFile(
            self.path.with_stem(f"{self.path.stem}-{number:04}"), self.identity, self.writes, self.names
        )

    def before(self, phase: str) -> CheckpointFile:
        """The checkpoint of a phase that comes before this one's, which it names."""
        return CheckpointFile(self.path.with_stem(f"{phase}-{self.path.stem}"), self.identity, self.writes, self.names)

    @property
    def due(self) -> bool:
        """Whether SECONDS_BETWEEN have gone by since the last save, or more, so that saves take a twentieth of the time."""
        return time.monotonic() - self._last >= SECONDS_BETWEEN * max(1.0, self._cost / CHEAP)


def mark(folder: Path) -> None:
    """Say in a folder of checkpoints what it is. Raises ToolchainError."""
    write_bytes(folder / README, ABOUT)


def remove(folder: Path) -> None:
    """Remove a folder of checkpoints: what was written here, by name and content; the folder itself if nothing else is in it.

    A link, a folder or a file of someone else stays, whatever it is called.
    """
    sweep(folder)
    with contextlib.suppress(OSError):
        for path in sorted(folder.iterdir()):
            if path.is_file() and not path.is_symlink() and _is_ours(path):
                path.unlink(missing_ok=True)
        folder.rmdir()


def _is_ours(path: Path) -> bool:
    if path.name == README:
        return path.stat().st_size == len(ABOUT) and path.read_bytes() == ABOUT
    if not OURS.fullmatch(path.name):
        return False
    try:
        return "identity" in read_metadata(path, "")
    except ArtifactError:
        return False
