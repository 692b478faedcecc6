"""A report of a correct device passes as a whole; edits, damage and misfits are told apart."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from dq_toolchain.toolchain.bundle import bundle_hash
from dq_toolchain.toolchain.checks import MINIMUM_SEEDS
from dq_toolchain.toolchain.errors import ArtifactError, ToolchainError
from dq_toolchain.toolchain.files import seal, sha256
from dq_toolchain.toolchain.page import _site, render, render_comparison, write_page
from dq_toolchain.toolchain.report import first_seeds, load_report, write_report
from dq_toolchain.toolchain.show import show_verdict
from dq_toolchain.toolchain.verdict import WORST, Verdict, validate
from tests.toolchain.devices import CORRECT, Case, case, header, run, skipping, write_bundle, write_run, wrong_scale


@pytest.fixture(scope="module")
def made() -> Case:
    return case()


@pytest.fixture(scope="module")
def good(made: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with the report of a correct device inside."""
    folder = write_bundle(tmp_path_factory.mktemp("good"), made)
    write_run(folder, made, CORRECT["fake-quantized float32"](made))
    return folder


@pytest.fixture
def bundle(good: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(good, tmp_path / "bundle"))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_a_correct_device_passes_both_verdicts(good: Path) -> None:
    verdict = validate(good / "report" / "report.json")
    assert verdict.passed
    assert (verdict.fidelity_passed, verdict.conformance_passed, verdict.first_step) == (True, True, None)
    assert verdict.to_json() == json.loads(json.dumps(verdict.to_json(), allow_nan=False))
    assert validate(good / "report").passed  # the folder will do


def test_a_sampler_fault_fails_both_and_names_the_step(made: Case, bundle: Path) -> None:
    write_run(bundle, made, run(made.artifact, made.reference, table=skipping(made.artifact.table, 3)))
    verdict = validate(bundle / "report")
    assert not verdict.fidelity_passed
    assert verdict.first_step_of(verdict.fidelity) == 3
    assert {c.name: c.step for c in verdict.conformance if not c.passed} == {"conformance.rollout": 3}


def test_small_damage_fails_conformance_while_the_picture_is_right(made: Case, bundle: Path) -> None:
    column = made.artifact.site_index("mid_block.attentions.0.to_k")
    write_run(bundle, made, run(wrong_scale(made.artifact, column, 2.0), made.reference))
    verdict = validate(bundle / "report")
    assert verdict.fidelity_passed
    assert not verdict.conformance_passed
    assert verdict.first_step == 0


def test_nan_is_a_verdict_not_a_crash(made: Case, bundle: Path) -> None:
    latents, outputs = (t.clone() for t in run(made.artifact, made.reference))
    latents[5:, 1] = torch.nan
    outputs[6:, 1] = torch.inf
    write_run(bundle, made, (latents, outputs))
    verdict = validate(bundle / "report")
    assert {c.name: c.step for c in (*verdict.fidelity, *verdict.conformance) if not c.passed} == {
        "fidelity.finite": 4, "conformance.finite": 4}
    assert verdict.first_step == 4
    json.dumps(verdict.to_json(), allow_nan=False)
    assert "NaN" in render(verdict)
    show_verdict(Console(quiet=True), verdict)


CLAIMS: dict[str, tuple[str, int | None, Callable[[dict[str, Any]], object]]] = {
    "smaller error": ("claims.error_fp32", 2, lambda d: d["per_step"][2].update(error_fp32=1e-6)),
    "error left out": ("claims.error_simulation", 1, lambda d: d["per_step"][1].update(error_simulation=None)),
    "better PSNR": ("claims.psnr", None, lambda d: d["final"]["psnr"].__setitem__(4, 61.5)),
    "better SSIM": ("claims.ssim", None, lambda d: d["final"]["ssim"].__setitem__(0, 0.5)),
}


@pytest.mark.parametrize("edited", CLAIMS)
def test_a_claim_that_does_not_follow_from_the_latents_fails_by_name(bundle: Path, edited: str) -> None:
    name, step, change = CLAIMS[edited]
    edit(bundle / "report" / "report.json", change)
    verdict = validate(bundle / "report")
    assert [(c.name, c.step) for c in verdict.claims if not c.passed] == [(name, step)]
    assert not verdict.passed
    assert verdict.fidelity_passed
    assert verdict.conformance_passed


def test_ssim_may_be_left_out(bundle: Path) -> None:
    edit(bundle / "report" / "report.json", lambda d: d["final"].pop("ssim"))
    assert validate(bundle / "report").passed


BAD_REPORTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "schema is not": lambda d: d.update(schema="dq-toolchain/other"),
    "schema_version 2": lambda d: d.update(schema_version=2),
    "is not a": lambda d: d.clear(),
    "'device' is a required property": lambda d: d.pop("device"),
    "unexpected": lambda d: d.update(surprise=1),
    "load_ms": lambda d: d.update(load_ms="fast"),
    "step_ms has 7 entries, the bundle has 8": lambda d: d["step_ms"].pop(),
    "per_step has 7 entries": lambda d: d["per_step"].pop(),
    "must list the steps 0-7 in order": lambda d: d["per_step"].reverse(),
    "final.psnr has 15 entries": lambda d: d["final"]["psnr"].pop(),
    "another bundle": lambda d: d.update(bundle_sha256="0" * 64),
    "target is 'coreml'": lambda d: d.update(target="coreml"),
    "the report's bundle is not at": lambda d: d.update(bundle="nowhere"),
    "is not valid JSON (NaN": lambda d: d["per_step"][0].update(error_fp32=float("nan")),
    "is not valid JSON (Infinity": lambda d: d["step_ms"].__setitem__(0, float("inf")),
    "step_ms.0: -1": lambda d: d["step_ms"].__setitem__(0, -1),
    "load_ms: 1e+200": lambda d: d.update(load_ms=1e200),
    "peak_memory_bytes: 1e+30": lambda d: d.update(peak_memory_bytes=1e30),
    "larger than 64 bits hold": lambda d: d.update(peak_memory_bytes=10**400),
    "final.psnr.0: 1e+300": lambda d: d["final"]["psnr"].__setitem__(0, 1e300),
    "final.psnr: 'high'": lambda d: d["final"].update(psnr="high"),
    "per_step.0: [] is not of type": lambda d: d["per_step"].__setitem__(0, []),
    "device: 'xxx": lambda d: d.update(device="x" * 5000),
    "was changed": lambda d: d["files"].update({"report.safetensors": "0" * 64}),
}


@pytest.mark.parametrize("text", BAD_REPORTS)
def test_a_bad_report_is_one_line(bundle: Path, text: str) -> None:
    change = BAD_REPORTS[text]
    edit(bundle / "report" / "report.json", change)
    with pytest.raises(ArtifactError, match=re.escape("is not a" if text == "schema is not" else text)) as caught:
        validate(bundle / "report")
    assert "\n" not in str(caught.value)


def test_damaged_files_are_refused(made: Case, bundle: Path) -> None:
    tensors = bundle / "report" / "report.safetensors"
    whole = tensors.read_bytes()
    tensors.write_bytes(whole[:-8])
    with pytest.raises(ArtifactError, match="was changed"):
        validate(bundle / "report")
    edit(bundle / "report" / "report.json", lambda d: d["files"].update({"report.safetensors": sha256(tensors)}))
    with pytest.raises(ArtifactError, match="cannot read"):
        validate(bundle / "report")
    tensors.unlink()
    with pytest.raises(ArtifactError, match="is missing"):
        validate(bundle / "report")
    (bundle / "report" / "report.json").write_text("{")
    with pytest.raises(ArtifactError, match="not valid JSON"):
        validate(bundle / "report")
    with pytest.raises(ArtifactError, match="cannot read"):
        validate(bundle / "nothing.json")


def test_a_report_of_other_shapes_is_refused_on_writing_and_on_reading(made: Case, bundle: Path) -> None:
    latents, outputs = run(made.artifact, made.reference)
    with pytest.raises(ArtifactError, match="latents has shape"):
        write_report(bundle / "report", header(bundle), latents[:-1], outputs, made.reference)
    more = dataclasses.replace(
        made.reference, start=_twice(made.reference.start, 0), fp32_latents=_twice(made.reference.fp32_latents),
        simulation_latents=_twice(latents), simulation_outputs=_twice(outputs),
        fp32_outputs_at_simulation=_twice(outputs))
    write_report(bundle / "report", header(bundle), _twice(latents), _twice(outputs), more)
    with pytest.raises(ArtifactError, match="the bundle expects"):
        validate(bundle / "report")


def _twice(x: torch.Tensor, axis: int = 1) -> torch.Tensor:
    return torch.cat([x, x], axis)


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_a_device_may_run_the_first_few_seeds(made: Case, bundle: Path, seeds: int) -> None:
    few = first_seeds(made.reference, seeds)
    write_report(bundle / "report", header(bundle), *run(made.artifact, few, mode="fake_quantize"), few)
    verdict = validate(bundle / "report")
    assert verdict.outcome == "not decided", verdict.to_json()
    assert verdict.more_seeds == MINIMUM_SEEDS - seeds
    assert f"--seeds {MINIMUM_SEEDS}" in str(verdict.remedy())
    skips = run(made.artifact, few, table=skipping(made.artifact.table, 3))
    write_report(bundle / "report", header(bundle), *skips, few)
    assert validate(bundle / "report").first_step == 3
    assert validate(bundle / "report").failed


def test_a_header_with_a_gap_is_not_written(made: Case, bundle: Path) -> None:
    incomplete = header(bundle)
    del incomplete["compute_unit"]
    with pytest.raises(ArtifactError, match="compute_unit"):
        write_report(bundle / "other", incomplete, *run(made.artifact, made.reference), made.reference)
    assert not (bundle / "other" / "report.json").exists()


@pytest.mark.parametrize("limits", [{}, {"fidelity": {"error": []}, "conformance": {}}])
def test_a_bundle_without_usable_limits_is_refused(made: Case, tmp_path: Path, limits: dict[str, Any]) -> None:
    folder = write_bundle(tmp_path, dataclasses.replace(made, limits=limits))
    write_run(folder, made, run(made.artifact, made.reference))
    with pytest.raises(ArtifactError, match="is damaged: limits"):
        validate(folder / "report")


def test_writing_and_reading_a_report_keeps_every_bit(made: Case, bundle: Path) -> None:
    device = run(made.artifact, made.reference)
    report = load_report(write_run(bundle, made, device))
    assert torch.equal(report.latents, device[0])
    assert report.outputs_at_simulation is not None
    assert torch.equal(report.outputs_at_simulation, device[1])


def test_the_page_stands_alone_and_is_the_same_each_time(good: Path, tmp_path: Path) -> None:
    verdict = validate(good / "report")
    text = render(verdict)
    assert text == render(validate(good / "report"))
    assert text.count("data:image/png;base64,") == 4 + WORST
    assert text.count("data:image/svg+xml;base64,") == 2
    assert "http" not in re.sub(r"data:[^\"]*", "", text)
    assert "<script" not in text
    assert "a &lt;test&gt; device" in text  # what a report says cannot become markup
    assert "statistics need float" in text
    write_page(tmp_path / "out.html", [verdict])
    assert (tmp_path / "out.html").read_text() == text


def said_by(verdict: Verdict) -> str:
    stream = io.StringIO()
    show_verdict(Console(width=200, file=stream), verdict)
    return stream.getvalue()


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
    write_report(report, header(evil) | {"bundle": "../evil"}, noise, torch.zeros_like(reference.simulation_outputs), reference)
    verdict = validate(report)
    assert verdict.failed
    assert {check.name for check in verdict.checks if check.outcome == "fail"} >= {
        "fidelity.error", "fidelity.psnr", "fidelity.floor", "conformance.ratio", "conformance.difference"}
    assert f"judged by the bundle {evil} (sha256 {bundle_hash(evil)[:12]}, the place that the report names)" in said_by(verdict)
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


def test_a_copy_of_the_simulation_is_named(made: Case, bundle: Path, good: Path) -> None:
    write_run(bundle, made, (made.reference.simulation_latents, made.reference.simulation_outputs))
    verdict = validate(bundle / "report")
    for text in (said_by(verdict), render(verdict), *verdict.to_json()["notes"]):
        assert "bit-identical to the simulation in every number" in text
    assert not validate(good / "report").notes


def test_the_worst_seeds_are_shown_by_name(made: Case, bundle: Path) -> None:
    latents, outputs = (t.clone() for t in run(made.artifact, made.reference))
    latents[-1, 11] = -latents[-1, 11]
    write_run(bundle, made, (latents, outputs))
    verdict = validate(bundle / "report")
    assert verdict.worst[0].seed == 11
    assert len(verdict.worst) == WORST
    assert not verdict.passed
    shown = f"seed 11 {verdict.worst[0].psnr:.1f} dB (simulation {verdict.worst[0].simulation_psnr:.1f})"
    assert shown in said_by(verdict)
    assert shown in render(verdict)
    assert verdict.to_json()["worst_seeds"][0]["seed"] == 11


def test_what_a_report_says_steers_neither_terminal_nor_page(bundle: Path) -> None:
    text = "\x1b]0;pwn\x07\x1b[31mRED\u202e [/red] [bold]$x$ <b>"
    edit(bundle / "report" / "report.json", lambda d: d.update(
        device=text, compute_unit=text, runtime={"name": text, "version": text}, versions={text: text}))
    verdict = validate(bundle / "report")
    page, said = render(verdict), said_by(verdict)
    for shown in (page, said, render_comparison([verdict, verdict])):
        assert not set("\x1b\x07\u202e") & set(shown)
    assert "[/red] [bold]" in said
    assert "<b>" not in page.split("<body>")[1].replace("<b>fidelity", "").replace("<b>conformance", "").replace("<b>claims", "")


def test_a_site_with_gaps_still_has_a_row() -> None:
    assert _site({"site": "a", "weight_bits": None, "range": [[0.5, 1], [None, "high"], 3]})["range"] == [
        "0.5 to 1", "n/a to n/a", "n/a to n/a"]
    assert _site({}) == dict.fromkeys(("site", "kind", "weight_bits", "activation_bits", "scheme"), "") | {"range": ["n/a"]}


TENSORS: dict[str, tuple[str, Callable[[torch.Tensor], torch.Tensor]]] = {
    "complex": ("must be F32", lambda x: x.to(torch.complex64)),
    "half": ("must be F32", lambda x: x.half()),
    "an axis less": ("expected five axes", lambda x: x[0]),
    "no seed": ("none empty", lambda x: x[:, :0]),
    "more seeds": ("has .* bytes, for all seeds of the bundle at most", lambda x: x.repeat(1, 3000, 1, 1, 1)),
    "a step less": ("the bundle expects", lambda x: x[1:]),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_of_another_kind_are_refused_before_they_are_read(
    made: Case, bundle: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, change = TENSORS[name]
    file = bundle / "report" / "report.safetensors"
    save_file({"latents": change(made.reference.simulation_latents).contiguous()}, file)
    edit(bundle / "report" / "report.json", lambda d: d["files"].update({"report.safetensors": sha256(file)}))
    monkeypatch.setattr("dq_toolchain.toolchain.report.read_tensors", lambda *_: pytest.fail("memory was taken"))
    with pytest.raises(ArtifactError, match=text):
        validate(bundle / "report")


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_page_replaces_nothing_but_a_regular_file(good: Path, tmp_path: Path, kind: str) -> None:
    target, page = tmp_path / "precious.txt", tmp_path / "page.html"
    target.write_text("x")
    if kind == "link":
        page.symlink_to(target)
    else:
        os.mkfifo(page)
    before = page.lstat()
    with contextlib.suppress(ToolchainError):  # refused, or written through the link
        write_page(page, [validate(good / "report")])
    assert (page.lstat().st_mode, page.lstat().st_ino) == (before.st_mode, before.st_ino)


def test_the_console_names_the_failing_step(made: Case, bundle: Path) -> None:
    write_run(bundle, made, run(made.artifact, made.reference, table=skipping(made.artifact.table, 3)))
    stream = io.StringIO()
    show_verdict(Console(width=200, file=stream), validate(bundle / "report"))
    text = stream.getvalue()
    assert "FAIL conformance" in text
    assert "first step outside its limits: 3" in text
    assert "verdict: FAIL" in text
