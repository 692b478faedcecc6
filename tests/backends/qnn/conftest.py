"""Bundles of tiny artifacts, one per form, made once per session and only read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from dq_toolchain import backends
from dq_toolchain.backends.qnn.settings import Settings
from dq_toolchain.toolchain.formats.artifact import Artifact, load_reference
from dq_toolchain.toolchain.formats.bundle import Bundle
from dq_toolchain.toolchain.formats.reference import Reference
from tests import tiny, tiny_artifacts
from tests.shared import once
from tests.tiny_npu import for_npu


@dataclass(frozen=True)
class Lowered:
    """A bundle, and what it was made of."""

    artifact: Artifact
    reference: Reference
    bundle: Bundle
    folder: Path

    @property
    def graphs(self) -> list[Path]:
        return [self.folder / "model" / f"{method}.onnx" for method in self.bundle.methods]

    def inputs(self, k: int, seed: int = 0) -> dict[str, Tensor]:
        """Inputs of step k by name: noise, the step's row, and conditioning."""
        row = seed % self.reference.seeds
        rows = self.bundle.step_vectors(self.folder)
        assert rows is not None
        sample = torch.randn(self.reference.start[:1].shape, generator=torch.Generator().manual_seed(seed))
        return {
            "sample": sample,
            "step_vectors": rows[k : k + 1],
            **self.reference.conditioning.select(slice(row, row + 1)).cond,
        }


def lower(folder: Path, artifact: Artifact, unet: nn.Module, **settings: Any) -> Lowered:
    """Save the artifact and lower it, as the command does."""
    reference = tiny_artifacts.tiny_reference(artifact, unet)
    source = folder / "calibration"
    artifact.save(source, reference)
    bundle = backends.load("qnn").lower(
        Artifact.load(source), source, folder / "qnn", Settings(**settings), lambda _: None
    )
    return Lowered(artifact, reference, bundle, folder / "qnn")


FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "a16": ("a16", {"attention": True}),
    "a16-w4": ("a16", {"weight_bits": 4, "smoothed": True}),
    "a8": ("a8", {"attention": True}),
    "cross-attention": ("a16", {"unet": "condition", "attention": True}),
}
"""Form and options of the artifact, by name."""


@pytest.fixture(scope="session", params=FORMS)
def form(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    """Each form in turn."""
    return made(request.param, tmp_path_factory)


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    """The default form, with attention in integers."""
    return made("a16", tmp_path_factory)


def made(name: str, folders: pytest.TempPathFactory) -> Lowered:
    """A form, lowered once, whichever process of the tests asks first."""
    artifact, unet = artifact_of(name)
    folder = once(folders, f"qnn-{name}", lambda folder: lower(folder, artifact, unet, form=FORMS[name][0]))
    reference, out = load_reference(folder / "calibration"), folder / "qnn"
    return Lowered(artifact, reference, Bundle.load(out), out)


@cache
def artifact_of(name: str) -> tuple[Artifact, nn.Module]:
    """The artifact of a form and its FP32 network, which takes step vectors."""
    networks: dict[str, Callable[[], nn.Module]] = {"condition": tiny.tiny_condition_unet}
    form, given = FORMS[name]
    options: dict[str, Any] = {key: networks[value]() if key == "unet" else value for key, value in given.items()}
    return for_npu(*tiny_artifacts.lively_artifact(**options), "a8" if form == "a8" else "a16")


def load_graph(path: Path) -> Any:
    """The graph of a file."""
    return ir.load(path).graph
