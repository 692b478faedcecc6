"""One asset for all tests that only read: W4A8, affine, two step groups, split convolutions, attention, labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from dq_toolchain import backends
from dq_toolchain.backends.common.call import example_call
from dq_toolchain.backends.common.qdq.export import Written
from dq_toolchain.backends.common.qdq.plan import Plan, plan_of
from dq_toolchain.backends.coreai.lowering import scales, write_program
from dq_toolchain.backends.coreai.proof.file import prove
from dq_toolchain.backends.coreai.settings import Settings
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.bundle import Bundle
from tests import tiny_artifacts
from tests.backends.teacher_forced import inputs_of


@dataclass(frozen=True)
class Converted:
    """An asset, what it was made of, and what the audit says of it."""

    artifact: Artifact
    unet: nn.Module
    asset: Path
    plan: Plan
    audited: Written

    def function_of(self, group: int) -> str:
        """The function that executes a step group."""
        names = list(self.audited.sites)
        return names[group if len(names) > 1 else 0]

    def site_of(self, function: str, label: str) -> str | None:
        """The tensor that a quantize operation of a function quantizes."""
        column = self.audited.sites[function].get(label)
        return None if column is None else self.plan.expected.qparams.names[column]

    def inputs(self, k: int, seed: int = 0) -> dict[str, Tensor]:
        return inputs_of(self.artifact, self.plan, k, seed)


def converted(folder: Path, settings: Mapping[str, Any], **options: Any) -> Converted:
    """An asset of a tiny artifact, by the steps of the command but for executing it."""
    artifact, unet = tiny_artifacts.lively_artifact(**options)
    section = Settings(**settings)
    plan = plan_of(artifact, tiny_artifacts.tiny_reference(artifact, unet), section, lambda _: None, scales)
    call = example_call(artifact, plan.reference, None if plan.ranges is None else plan.ranges[:1])
    folder.mkdir(parents=True, exist_ok=True)
    written = write_program(artifact, call, section, plan.expected, folder, lambda _: None)
    return Converted(artifact, unet, folder / written.program, plan, written)


EXACT: dict[str, Any] = {
    "settings": {"precision": "fp32"},
    "weight_bits": 4,
    "scheme": "affine",
    "smoothed": True,
}


@pytest.fixture(scope="session")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """W4A8, affine, fp32, smoothed convolutions."""
    return converted(tmp_path_factory.mktemp("exact"), **EXACT)


def lower(folder: Path, artifact: Artifact, unet: nn.Module, **settings: Any) -> tuple[Bundle, Path]:
    """Save the artifact and lower it, as the command does; the bundle and its folder."""
    artifact.save(folder / "calibration", tiny_artifacts.tiny_reference(artifact, unet))
    out = folder / "coreai"
    return backends.load("coreai").lower(
        artifact, folder / "calibration", out, Settings(**settings), lambda _: None
    ), out


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Path]:
    """W8A8, symmetric, fp16, with guidance: what the command writes."""
    artifact, unet = tiny_artifacts.lively_artifact()
    return lower(tmp_path_factory.mktemp("bundle"), replace(artifact, guidance=2.0), unet)


@pytest.fixture(scope="session")
def half(bundle: tuple[Bundle, Path]) -> Converted:
    """The asset of ``bundle``: guidance is no part of it."""
    artifact, unet = tiny_artifacts.lively_artifact()
    reference = tiny_artifacts.tiny_reference(artifact, unet)
    plan = plan_of(artifact, reference, Settings(), lambda _: None, scales)
    asset = bundle[1] / bundle[0].program
    _, sites = prove(asset, artifact, plan.expected)
    return Converted(artifact, unet, asset, plan, Written(bundle[0].program, bundle[0].operations, sites))
