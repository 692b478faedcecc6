"""The audit of a bundle's program, for tests that ask every target."""

from __future__ import annotations

from pathlib import Path

from dq_toolchain.backends.common.qdq.audit import Expected
from dq_toolchain.backends.common.qdq.qparams import QParams
from dq_toolchain.backends.coreai.proof.file import prove
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.bundle import Bundle


def audit_bundle(folder: Path, artifact: Artifact) -> None:
    """Raises BackendError: the program of a bundle in the default form differs from the artifact."""
    prove(folder / Bundle.load(folder).program, artifact, Expected(QParams.of(artifact)))
