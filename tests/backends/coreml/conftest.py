"""One package for all tests that only read: W4A8, affine, two step groups, split convolutions, attention, guidance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from dq_toolchain import backends
from dq_toolchain.backends.common.call import example_call
from dq_toolchain.backends.common.qdq.audit import audit
from dq_toolchain.backends.common.qdq.export import Written
from dq_toolchain.backends.common.qdq.plan import Plan, plan_of
from dq_toolchain.backends.coreml.interpreter.program import Program, load
from dq_toolchain.backends.coreml.lowering import ratios, write_program
from dq_toolchain.backends.coreml.package import packages_in
from dq_toolchain.backends.coreml.proof.reading import MILReader
from dq_toolchain.backends.coreml.settings import Settings
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.bundle import Bundle
from tests import tiny_artifacts
from tests.backends.teacher_forced import inputs_of


@dataclass(frozen=True)
class Converted:
    """A package, what it was made of, and what the audit says of it."""

    artifact: Artifact
    unet: nn.Module
    program: Path
    functions: dict[str, Program]
    plan: Plan
    audited: Written

    def function_of(self, group: int) -> tuple[str, Program]:
        """Name and program that execute a step group."""
        names = list(self.functions)
        name = names[group if len(names) > 1 else 0]
        return name, self.functions[name]

    def inputs(self, k: int, seed: int = 0) -> dict[str, Tensor]:
        return inputs_of(self.artifact, self.plan, k, seed)


def converted(folder: Path, settings: Mapping[str, Any], **options: Any) -> Converted:
    """A package of a tiny artifact, by the steps of the command but for executing it."""
    artifact, unet = tiny_artifacts.lively_artifact(**options)
    section = Settings(**settings)
    plan = plan_of(artifact, tiny_artifacts.tiny_reference(artifact, unet), section, lambda _: None, ratios)
    call = example_call(artifact, plan.reference, None if plan.ranges is None else plan.ranges[:1])
    folder.mkdir(parents=True, exist_ok=True)
    written = write_program(artifact, call, section, plan.expected, folder, lambda _: None)
    programs = load(*packages_in(folder / written.program))
    return Converted(artifact, unet, folder / written.program, {m: programs[m] for m in written.sites}, plan, written)


@pytest.fixture(scope="session")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """W4A8, affine, fp32, smoothed convolutions."""
    return converted(
        tmp_path_factory.mktemp("exact"), {"precision": "fp32"}, weight_bits=4, scheme="affine", smoothed=True
    )


def lower(folder: Path, artifact: Artifact, unet: nn.Module, **settings: Any) -> tuple[Bundle, Path]:
    """Save the artifact and lower it, as the command does; the bundle and its folder."""
    artifact.save(folder / "calibration", tiny_artifacts.tiny_reference(artifact, unet))
    out = folder / "coreml"
    return backends.load("coreml").lower(
        artifact, folder / "calibration", out, Settings(**settings), lambda _: None
    ), out


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Path]:
    """W8A8, symmetric, fp16, with guidance: what the command writes."""
    artifact, unet = tiny_artifacts.lively_artifact()
    return lower(tmp_path_factory.mktemp("bundle"), replace(artifact, guidance=2.0), unet)


@pytest.fixture(scope="session")
def half(bundle: tuple[Bundle, Path]) -> Converted:
    """The package of ``bundle``: guidance is no part of it."""
    artifact, unet = tiny_artifacts.lively_artifact()
    section = Settings()
    plan = plan_of(artifact, tiny_artifacts.tiny_reference(artifact, unet), section, lambda _: None, ratios)
    package = bundle[1] / bundle[0].program
    programs = load(*packages_in(package))
    functions = {method: programs[method] for method in bundle[0].methods}
    return Converted(
        artifact,
        unet,
        package,
        functions,
        plan,
        Written(bundle[0].program, bundle[0].operations, audit(functions, artifact, plan.expected, MILReader())),
    )
