"""The audit of a bundle's program, for tests that ask every target."""

from __future__ import annotations

from pathlib import Path

import onnx_ir

from dq_toolchain.backends.tensorrt.proof.audit import audit
from dq_toolchain.toolchain.formats.artifact import Artifact


def audit_bundle(folder: Path, artifact: Artifact) -> None:
    """Raises BackendError: the first graph of a bundle in the default form differs from the artifact."""
    audit(onnx_ir.load(min((folder / "model").glob("*.onnx"))).graph, artifact, 0)
