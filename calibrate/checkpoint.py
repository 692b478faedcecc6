"""Where a calibration stands, on disk: one safetensors file, replaced atomically, never a pickle.

A run started again with the same recipe continues from it and ends in the bit-identical artifact; with another
recipe it starts afresh.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.files import read_tensors_and_metadata, write_tensors

SECONDS_BETWEEN = 60.0


def fingerprint(*parts: object) -> str:
    """sha256 over the JSON of everything that decides the result."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


class CheckpointFile:
    """One named checkpoint in the work folder, valid for one fingerprint only."""

    def __init__(self, path: Path, identity: str, writes: bool = True) -> None:
        """``writes``: False for all but one of several processes, which load what that one saves."""
        self.path, self.identity, self.writes = path, identity, writes
        self._last = time.monotonic()

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and state, or None when there is nothing to continue from (absent, damaged or of another recipe)."""
        if not self.path.is_file():
            return None
        try:
            tensors, metadata = read_tensors_and_metadata(self.path, "")
            state = json.loads(metadata["state"])
        except (ArtifactError, KeyError, ValueError):
            return None
        if metadata.get("identity") != self.identity or not isinstance(state, dict):
            return None
        return tensors, state

    def save(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Replace the checkpoint. Raises ToolchainError (e.g. full disk); the previous one then stays."""
        if self.writes:
            write_tensors(self.path, tensors, {"identity": self.identity, "state": json.dumps(state)})
        self._last = time.monotonic()

    def part(self, number: int) -> CheckpointFile:
        """The checkpoint of one part of the work, in a file of its own: what is done is not written again."""
        return CheckpointFile(self.path.with_stem(f"{self.path.stem}-{number:04}"), self.identity, self.writes)

    @property
    def due(self) -> bool:
        """Whether SECONDS_BETWEEN have gone by since the last save."""
        return time.monotonic() - self._last >= SECONDS_BETWEEN
