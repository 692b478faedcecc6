"""By which bundle a report is judged: the one it names or the one that is given, by limits that follow from its reference."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dq_toolchain.toolchain.disk.files import seal
from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.formats.bundle import bundle_hash
from dq_toolchain.toolchain.formats.report import write_report
from dq_toolchain.toolchain.verdict.judge import validate
from tests.toolchain.devices import Case, header, run, write_bundle, write_run
from tests.toolchain.reports import edit, said_by


def forge(bundle: Path, limits: Any) -> Path:
    """The bundle beside itself as "evil", its limits changed and its seal made good."""
    evil = Path(shutil.copytree(bundle, bundle.parent / "evil"))
    data = json.loads((evil / "bundle.json").read_text())
    (evil / "bundle.json").write_text(json.dumps(seal(data | {"limits": limits})))
    return evil


def huge(limits: Any) -> Any:
    if isinstance(limits, dict):
        return {name: huge(part) for name, part in limits.items()}
    return [huge(part) for part in limits] if isinstance(limits, list) else 1e30


def test_limits_in_the_bundle_are_not_believed(made: Case, bundle: Path) -> None:
    """Start noise as picture and zeros as outputs, judged by a bundle that the report itself names."""
    evil = forge(bundle, huge(made.limits) | {"conformance": huge(made.limits["conformance"]) | {"exact": None}})
    reference = made.reference
    noise = reference.start.expand_as(reference.fp32_latents).contiguous()
    report = bundle.parent / "inbox"
    write_report(
        report, header(evil) | {"bundle": "../evil"}, noise, torch.zeros_like(reference.simulation_outputs), reference
    )
    verdict = validate(report)
    assert verdict.failed
    assert {check.name for check in verdict.checks if check.outcome == "fail"} >= {
        "fidelity.error",
        "fidelity.psnr",
        "fidelity.floor",
        "conformance.ratio",
        "conformance.difference",
    }
    assert f"judged by the bundle {evil} (sha256 {bundle_hash(evil)[:12]}, the place that the report names)" in said_by(
        verdict
    )
    assert any("not those of its reference (fidelity.error[0]" in note for note in verdict.notes)
    assert verdict.to_json()["bundle"] == {"path": str(evil), "sha256": bundle_hash(evil), "given": False}
    with pytest.raises(ArtifactError, match="made with another bundle"):
        validate(report, bundle)


BAD_LIMITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "null": lambda limits: None, "a list": lambda limits: [limits],
    "part null": lambda limits: limits | {"fidelity": None},
    "shares beyond one": lambda limits: _with_share(limits, [1e300] * 8),
    "shares negative": lambda limits: _with_share(limits, [-1.0] * 8),
    "shares as text": lambda limits: _with_share(limits, ["half"] * 8),
    "too few shares": lambda limits: _with_share(limits, [0.5]),
}  # fmt: skip


def _with_share(limits: dict[str, Any], share: list[Any]) -> dict[str, Any]:
    return limits | {"conformance": limits["conformance"] | {"exact": {"difference": 0.02, "share": share}}}


@pytest.mark.parametrize("name", BAD_LIMITS)
def test_limits_of_another_form_are_refused(made: Case, bundle: Path, name: str) -> None:
    evil = forge(bundle, BAD_LIMITS[name](made.limits))
    edit(bundle / "report" / "report.json", lambda d: d.update(bundle=str(evil), bundle_sha256=bundle_hash(evil)))
    with pytest.raises(ArtifactError) as caught:
        validate(bundle / "report")
    assert "\n" not in str(caught.value)


def test_a_report_that_came_home_asks_for_its_bundle_and_takes_it(bundle: Path) -> None:
    inbox = Path(shutil.copytree(bundle / "report", bundle.parent / "inbox"))
    edit(inbox / "report.json", lambda d: d.update(bundle="."))
    with pytest.raises(ArtifactError, match=r"bundle is not at .*inbox; name its folder with --bundle"):
        validate(inbox)
    verdict = validate(inbox, [bundle])
    assert verdict.passed
    assert "given with --bundle" in said_by(verdict)
    with pytest.raises(ArtifactError, match=r"there is no bundle\.json in it"):
        validate(inbox, [inbox])


@pytest.mark.parametrize("limits", [{}, {"fidelity": {"error": []}, "conformance": {}}])
def test_a_bundle_without_usable_limits_is_refused(made: Case, tmp_path: Path, limits: dict[str, Any]) -> None:
    folder = write_bundle(tmp_path, dataclasses.replace(made, limits=limits))
    write_run(folder, made, run(made.artifact, made.reference))
    with pytest.raises(ArtifactError, match="is damaged: limits"):
        validate(folder / "report")
