"""A bundle with several step counts, from every target: each runs, and is judged by FP32's own samples at that count."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from dq_toolchain import backends
from dq_toolchain.backends.common.running import run as run_bundle
from dq_toolchain.toolchain.disk.files import seal
from dq_toolchain.toolchain.errors import ArtifactError, SamplerError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.bundle import Bundle
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.sampler.probe import probe
from dq_toolchain.toolchain.sampler.samplings import Sampling, step_groups_at
from dq_toolchain.toolchain.verdict.doctor import examine
from dq_toolchain.toolchain.verdict.judge import validate
from tests import tiny, tiny_artifacts
from tests.shared import once

SETTINGS: dict[str, dict[str, Any]] = {
    "executorch": {},
    "coreml": {"step_groups_as": "input"},
    "coreai": {"step_groups_as": "input"},
    "tensorrt": {"step_groups_as": "input"},
}
OTHERS = ((2, 2.0), (6, 1.0))


Change = Callable[[Artifact, nn.Module], tuple[Artifact, nn.Module]]
"""An artifact and its FP32 network, made into others."""


def with_others(
    change: Change = lambda artifact, unet: (artifact, unet),
) -> tuple[Artifact, Reference, list[Reference]]:
    """An artifact of guidance 2 with ``OTHERS``, and the held-out rollouts of all.

    Args:
        change: what the target takes of the artifact without them.
    """
    artifact, unet = tiny_artifacts.tiny_artifact(unet=tiny.small_unet())
    artifact = replace(artifact, guidance=2.0)
    samplings = []
    for steps, guidance in OTHERS:
        table = probe(tiny.scheduler(), steps)
        groups = step_groups_at(table.timesteps, artifact.table.timesteps, artifact.step_groups)
        samplings.append(Sampling(steps, guidance, table, groups))
    artifact = replace(artifact, steps=4, samplings=tuple(samplings))
    artifact, unet = change(artifact, unet)
    others = [tiny_artifacts.tiny_reference(artifact.at(each), unet) for each in samplings]
    return artifact, tiny_artifacts.tiny_reference(artifact, unet), others


@pytest.fixture(params=SETTINGS)
def lowered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target: str = request.param
    info = backends.describe(target)
    if info.version is None:
        pytest.skip(f"needs {info.library}")

    def make(folder: Path) -> None:
        artifact, reference, others = with_others()
        artifact.save(folder / "calibration", reference, others)
        section = backends.settings(target).model_validate(SETTINGS[target])
        backends.load(target).lower(artifact, folder / "calibration", folder / "bundle", section, lambda _: None)

    return once(tmp_path_factory, f"samplings-{target}", make) / "bundle"


def test_each_runs_and_is_judged_by_its_own_reference(lowered: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(lowered)
    assert (bundle.steps, [(each.sampling.steps, each.sampling.guidance) for each in bundle.samplings]) == (
        4,
        [*OTHERS],
    )
    assert all(check.passed for check in examine(lowered))
    for steps, guidance in ((4, 2.0), *OTHERS):
        report = run_bundle(
            backends.load(bundle.target),
            bundle,
            lowered,
            tmp_path / str(steps),
            steps=steps,
            guidance=guidance,
            seeds=1,
        )
        data = json.loads(report.read_text())
        assert (data["steps"], data["guidance"], len(data["step_ms"])) == (steps, guidance, steps)
        verdict = validate(report)
        assert not verdict.failed, verdict.to_json()
        assert verdict.sampler == f"{steps} steps, guidance {guidance:g}"
        assert len(verdict.steps) == steps
    own = validate(tmp_path / "4")
    (tmp_path / "4" / "report.json").write_text(
        json.dumps({k: v for k, v in own.report.data.items() if k not in ("steps", "guidance")})
    )
    assert validate(tmp_path / "4").sampler == own.sampler  # of a program that knows one sampler only


def test_what_the_bundle_does_not_hold_is_named(lowered: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(lowered)
    with pytest.raises(SamplerError, match="got 3 steps, guidance 2, the bundle holds 4 steps, guidance 2; 2 steps"):
        run_bundle(backends.load(bundle.target), bundle, lowered, tmp_path, steps=3)
    report = run_bundle(backends.load(bundle.target), bundle, lowered, tmp_path, steps=2, seeds=1)
    data = json.loads(report.read_text())
    report.write_text(json.dumps(data | {"steps": 3}))
    with pytest.raises(ArtifactError, match="got 3 steps"):
        validate(report)
    report.write_text(
        json.dumps({k: v for k, v in data.items() if k != "steps"})
    )  # now it claims to be of the calibrated count
    with pytest.raises(ArtifactError, match="the bundle expects"):
        validate(report)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda d: d["samplings"][0]["step_groups"].pop(), "lists of the steps"),
        (lambda d: d["samplings"][0]["step_groups"][0].append(1), "lists of the steps"),
        (lambda d: d["samplings"].append(d["samplings"][0]), "twice"),
        (lambda d: d["samplings"][0].update(reference="reference-9.safetensors"), "lists no file"),
        (lambda d: d["samplings"][0].update(reference="../x"), "reference"),
        (lambda d: d["samplings"][0].update(steps=0), "steps"),
        (lambda d: d["samplings"][0]["table"].pop("a"), "'a' is a required"),
        (lambda d: d["samplings"][0].pop("limits"), "'limits' is a required"),
        (lambda d: d.pop("steps"), "'steps' is a dependency"),
    ],
)
def test_damage_is_refused(change: Any, text: str, tmp_path: Path) -> None:
    golden = Path(__file__).parents[2] / "runtime_samples" / "golden" / "samplers" / "two-steps" / "bundle"
    data = json.loads((golden / "bundle.json").read_text())
    change(data)
    del data["content_sha256"]
    for file in golden.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "bundle.json").write_text(json.dumps(seal(data)))
    with pytest.raises(ArtifactError, match=text):
        Bundle.load(tmp_path)


def test_without_others_the_bundle_says_nothing_of_them(tmp_path: Path) -> None:
    golden = Path(__file__).parents[2] / "runtime_samples" / "golden" / "ddim-guided" / "bundle"
    Bundle.load(golden).save(tmp_path)
    assert (tmp_path / "bundle.json").read_bytes() == (golden / "bundle.json").read_bytes()
