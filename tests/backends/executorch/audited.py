"""The audit of a bundle's program, for tests that ask every target."""

from __future__ import annotations

from pathlib import Path

from dq_toolchain.backends.executorch.proof.audit import audit
from dq_toolchain.backends.executorch.proof.pte_file import read_pte
from dq_toolchain.toolchain.formats.artifact import Artifact


def audit_bundle(folder: Path, artifact: Artifact) -> None:
    """Raises BackendError: the program of a bundle in the default form differs from the artifact."""
    audit(read_pte(folder / "model.pte"), artifact)
