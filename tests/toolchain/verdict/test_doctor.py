"""A bundle that is whole is found so, and each thing that does not fit is named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from dq_toolchain.backends.programs import program_checks
from dq_toolchain.toolchain.cli.entry import run_command
from dq_toolchain.toolchain.disk.files import seal, sha256
from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.formats.bundle import JSON, Bundle, Port
from dq_toolchain.toolchain.formats.reference import FILE, Reference
from dq_toolchain.toolchain.verdict.doctor import examine
from tests.toolchain.devices import Case, case, write_bundle


@pytest.fixture(scope="module")
def made() -> Case:
    return case(seeds=4)


def _bundle(folder: Path, made: Case, **changes: object) -> Path:
    """A bundle whose inputs are those of its network, changed."""
    write_bundle(folder, made)
    shape = (1, *made.reference.start.shape[1:])
    inputs = (Port("sample", "float32", shape), Port("timestep", "float32", (1,)), Port("class_labels", "int64", (1,)))
    (folder / "graphs").mkdir(exist_ok=True)  # a program of files is checked without a runtime
    (folder / "model.bin").rename(folder / "graphs" / "forward.onnx")
    loaded = json.loads((folder / JSON).read_text())
    (folder / JSON).write_text(
        json.dumps(
            seal(
                {
                    **loaded,
                    "target": "tensorrt",
                    "program": "graphs",
                    "sizes": {"graphs/forward.onnx": 7},
                    "files": {"graphs/forward.onnx": loaded["files"]["model.bin"], FILE: loaded["files"][FILE]},
                }
            )
        )
    )
    dataclasses.replace(Bundle.load(folder), **{"inputs": inputs, **changes}).save(folder)  # type: ignore[arg-type]
    return folder


def _with_reference(folder: Path, reference: Reference) -> None:
    bundle = Bundle.load(folder)
    reference.save(folder / FILE)
    dataclasses.replace(bundle, files={**bundle.files, FILE: sha256(folder / FILE)}).save(folder)


def failed(folder: Path) -> list[str]:
    return [check.name for check in examine(folder) if not check.passed]


def test_a_whole_bundle(made: Case, tmp_path: Path) -> None:
    assert failed(_bundle(tmp_path, made)) == []


def test_files_that_do_not_belong_there(made: Case, tmp_path: Path) -> None:
    folder = _bundle(tmp_path, made)
    (folder / "notes.txt").write_text("mine")
    (folder / "engines").mkdir()
    (folder / "engines" / "steps_g0.plan").write_bytes(b"plan")
    checks = {check.name: check for check in examine(folder)}
    assert not checks["doctor.stray"].passed
    assert "notes.txt" in checks["doctor.stray"].detail
    assert failed(folder) == ["doctor.stray"]


def test_conditioning_that_the_program_does_not_take(made: Case, tmp_path: Path) -> None:
    shape = (1, *made.reference.start.shape[1:])
    ports = (Port("sample", "float32", shape), Port("timestep", "float32", (1,)), Port("class_labels", "float32", (1,)))
    assert failed(_bundle(tmp_path, made, inputs=ports)) == ["doctor.conditioning"]


def test_guidance_without_unconditional_inputs(made: Case, tmp_path: Path) -> None:
    assert failed(_bundle(tmp_path, made, guidance=2.0)) == ["doctor.conditioning"]


def test_latents_of_another_shape(made: Case, tmp_path: Path) -> None:
    ports = (
        Port("sample", "float32", (1, 3, 8, 8)),
        Port("timestep", "float32", (1,)),
        Port("class_labels", "int64", (1,)),
    )
    outputs = (Port("out", "float32", (1, 3, 8, 8)),)
    assert failed(_bundle(tmp_path, made, inputs=ports, outputs=outputs)) == ["doctor.shapes"]


def test_limits_of_another_run(made: Case, tmp_path: Path) -> None:
    limits = {**made.limits, "fidelity": {**made.limits["fidelity"], "error": [1.0]}}
    assert failed(_bundle(tmp_path, made, limits=limits)) == ["doctor.limits"]


def test_a_reference_that_is_not_finite(made: Case, tmp_path: Path) -> None:
    folder = _bundle(tmp_path, made)
    outputs = made.reference.simulation_outputs.clone()
    outputs[0, 0] = torch.nan
    _with_reference(folder, dataclasses.replace(made.reference, simulation_outputs=outputs))
    assert failed(folder) == ["doctor.finite"]


def test_a_report_of_another_bundle(made: Case, tmp_path: Path) -> None:
    folder = _bundle(tmp_path, made)
    (folder / "report.json").write_text('{"bundle_sha256": "0"}')
    assert failed(folder) == ["doctor.report"]


def test_a_damaged_file_is_one_line(made: Case, tmp_path: Path) -> None:
    folder = _bundle(tmp_path, made)
    (folder / "graphs" / "forward.onnx").write_bytes(b"another")
    with pytest.raises(ArtifactError, match=r"forward\.onnx was changed"):
        examine(folder)


def test_a_target_that_nothing_runs_and_methods_that_are_not_there(made: Case, tmp_path: Path) -> None:
    folder = _bundle(tmp_path, made, methods=("nope",))
    checks = {check.name: check for check in examine(folder, program_checks)}
    assert "holds no method 'nope', it has forward" in checks["doctor.program"].detail
    assert [name for name, check in checks.items() if not check.passed] == ["doctor.program"]
    dataclasses.replace(Bundle.load(folder), target="toaster").save(folder)
    assert [check.name for check in examine(folder, program_checks) if not check.passed] == ["doctor.target"]


def test_the_command(made: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _bundle(tmp_path, made)
    assert run_command(["doctor", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"]
    (folder / "notes.txt").write_text("mine")
    assert run_command(["doctor", str(folder)]) == 1
    assert "FAIL stray: notes.txt is not part of the bundle" in capsys.readouterr().out
    assert run_command(["doctor", str(tmp_path / "none")]) == 2
