"""What tests that ask every target need of this one: an artifact as it takes it, and the audit of a bundle's program."""

from __future__ import annotations

from pathlib import Path

import onnx_ir
from torch import nn

from dq_toolchain.backends.qnn.graph.biases import GRAPH, NPU
from dq_toolchain.backends.qnn.proof.audit import audit
from dq_toolchain.toolchain.formats.artifact import Artifact
from tests.tiny_npu import for_npu


def as_taken(artifact: Artifact, unet: nn.Module) -> tuple[Artifact, nn.Module]:
    """The artifact in the default form."""
    return for_npu(artifact, unet)


def audit_bundle(folder: Path, artifact: Artifact) -> None:
    """Raises BackendError: the first graph of a bundle in the default form differs from the artifact."""
    first = min(path for path in (folder / "model").glob(f"*{GRAPH}") if not path.name.endswith(NPU))
    audit(onnx_ir.load(first).graph, artifact, 0)
