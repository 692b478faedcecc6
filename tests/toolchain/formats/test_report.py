"""A report is written and read to the bit; one that is damaged, of another form or of another bundle is refused in one line."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dq_toolchain.toolchain.disk.files import sha256
from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.formats.report import load_report, write_report
from dq_toolchain.toolchain.verdict.judge import validate
from tests.toolchain.devices import Case, header, run, write_run
from tests.toolchain.reports import edit

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
        made.reference,
        start=_twice(made.reference.start, 0),
        fp32_latents=_twice(made.reference.fp32_latents),
        simulation_latents=_twice(latents),
        simulation_outputs=_twice(outputs),
        fp32_outputs_at_simulation=_twice(outputs),
    )
    write_report(bundle / "report", header(bundle), _twice(latents), _twice(outputs), more)
    with pytest.raises(ArtifactError, match="the bundle expects"):
        validate(bundle / "report")


def _twice(x: torch.Tensor, axis: int = 1) -> torch.Tensor:
    return torch.cat([x, x], axis)


def test_a_header_with_a_gap_is_not_written(made: Case, bundle: Path) -> None:
    incomplete = header(bundle)
    del incomplete["compute_unit"]
    with pytest.raises(ArtifactError, match="compute_unit"):
        write_report(bundle / "other", incomplete, *run(made.artifact, made.reference), made.reference)
    assert not (bundle / "other" / "report.json").exists()


def test_writing_and_reading_a_report_keeps_every_bit(made: Case, bundle: Path) -> None:
    device = run(made.artifact, made.reference)
    report = load_report(write_run(bundle, made, device))
    assert torch.equal(report.latents, device[0])
    assert report.outputs_at_simulation is not None
    assert torch.equal(report.outputs_at_simulation, device[1])


TENSORS: dict[str, tuple[str, Callable[[torch.Tensor], torch.Tensor]]] = {
    "complex": ("must be F32", lambda x: x.to(torch.complex64)),
    "half": ("must be F32", lambda x: x.half()),
    "an axis less": ("expected 5 axes", lambda x: x[0]),
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
    monkeypatch.setattr(
        "dq_toolchain.toolchain.formats.report.read_tensors", lambda *_: pytest.fail("memory was taken")
    )
    with pytest.raises(ArtifactError, match=text):
        validate(bundle / "report")
