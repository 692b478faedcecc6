"""The audit of a bundle's program, for tests that ask every target."""

from __future__ import annotations

from pathlib import Path

from dq_toolchain.backends.common.qdq.audit import Expected, audit
from dq_toolchain.backends.common.qdq.qparams import QParams
from dq_toolchain.backends.coreml.interpreter.program import load
from dq_toolchain.backends.coreml.package import packages_in
from dq_toolchain.backends.coreml.proof.reading import MILReader
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.bundle import Bundle


def audit_bundle(folder: Path, artifact: Artifact) -> None:
    """Raises BackendError: the program of a bundle in the default form differs from the artifact."""
    programs = load(*packages_in(folder / Bundle.load(folder).program))
    audit({name: programs[name] for name in sorted(programs)}, artifact, Expected(QParams.of(artifact)), MILReader())
