"""dq-run on the CPU: bit for bit what ONNX Runtime answers in Python, and a report that `validate` judges."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from dq_toolchain import backends
from dq_toolchain.backends.base import Runtime
from dq_toolchain.backends.common.running import run as run_bundle
from dq_toolchain.backends.common.sampling import sample
from dq_toolchain.backends.qnn.chips import SOCS
from dq_toolchain.toolchain.formats.bundle import Bundle
from dq_toolchain.toolchain.formats.report import load_report
from dq_toolchain.toolchain.verdict.judge import validate
from tests.backends.qnn.conftest import Lowered
from tests.runtime_samples.building import SAMPLES
from tests.runtime_samples.cpp_core.conftest import GOLDEN, assert_refused, run, seal_files
from tests.runtime_samples.qnn.conftest import HEADERS, STAND_IN


def test_answers_are_those_of_python(bundle: Path, dq_run: Path, tmp_path: Path) -> None:
    from tests.runtime_samples.qnn.graphs import PythonGraphs

    loaded = Bundle.load(bundle)
    runtime = Runtime("ONNX Runtime", "1", "CPU", 0.0)
    sample(
        loaded, bundle, tmp_path / "python", loaded.reference(bundle), PythonGraphs(bundle), runtime, lambda *_: None
    )
    done = run(dq_run, "--bundle", bundle, "--report", tmp_path / "cpp")
    assert done.returncode == 0, done.stderr
    assert not done.stdout
    assert not done.stderr
    got, wanted = load_report(tmp_path / "cpp"), load_report(tmp_path / "python")
    assert torch.equal(got.latents, wanted.latents)
    assert got.outputs_at_simulation is not None
    assert wanted.outputs_at_simulation is not None
    assert torch.equal(got.outputs_at_simulation, wanted.outputs_at_simulation)
    assert not validate(tmp_path / "cpp").failed
    assert got.data["runtime"]["name"] == "ONNX Runtime (C++)"
    assert got.data["compute_unit"] == "CPU, not the NPU"
    assert got.data["load_ms"] > 0
    assert all(milliseconds > 0 for milliseconds in got.data["step_ms"])
    assert 0 < got.data["peak_memory_bytes"] < 2**30


def test_an_exported_bundle(wide: Lowered, dq_run: Path, tmp_path: Path) -> None:
    """What `export --target qnn` wrote, against `run --target qnn`: 16-bit activations, attention, weights in a file beside."""
    python = run_bundle(backends.load("qnn"), wide.bundle, wide.folder, tmp_path / "python", seeds=2)
    done = run(dq_run, "--bundle", wide.folder, "--report", tmp_path / "cpp", "--seeds", "2")
    assert done.returncode == 0, done.stderr
    got, wanted = load_report(tmp_path / "cpp"), load_report(python)
    torch.testing.assert_close(got.latents, wanted.latents, rtol=1e-6, atol=1e-6)
    assert got.data["runtime"]["version"] == wanted.data["runtime"]["version"]
    verdict = validate(tmp_path / "cpp")
    assert not [
        check for check in (*verdict.fidelity, *verdict.conformance, *verdict.claims) if check.outcome == "fail"
    ]


def test_step_groups_and_rows_matter(bundle: Path, dq_run: Path, tmp_path: Path) -> None:
    """The comparison above would notice an exchanged graph and an exchanged row."""
    for name in ("graphs", "rows"):
        folder = Path(shutil.copytree(bundle, tmp_path / name))
        if name == "graphs":
            data = json.loads((folder / "bundle.json").read_text())
            (folder / "bundle.json").write_text(json.dumps(data | {"methods": data["methods"][::-1]}))
        else:
            from safetensors.torch import load_file, save_file

            rows = load_file(folder / "step_vectors.safetensors")["step_vectors"]
            save_file({"step_vectors": rows.flip(0).contiguous()}, folder / "step_vectors.safetensors")
            seal_files(folder)
        done = run(dq_run, "--bundle", folder, "--report", tmp_path / f"{name}-report")
        assert done.returncode == 0, done.stderr
        wanted = Bundle.load(bundle).reference(bundle).simulation_latents
        assert not torch.equal(load_report(tmp_path / f"{name}-report").latents, wanted)


def test_graphs_that_do_not_load_are_one_line(bundle: Path, dq_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    graph = folder / "model" / "steps_g1.onnx"
    graph.write_bytes(b"no graph")
    seal_files(folder)
    assert_refused(
        run(dq_run, "--bundle", folder, "--report", tmp_path / "r"), "ONNX Runtime cannot load steps_g1.onnx: "
    )
    graph.unlink()
    assert_refused(run(dq_run, "--bundle", folder, "--report", tmp_path / "r"), f"cannot read {graph}")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("port", [0, 1], ids=["sample", "step_vectors"])
def test_graphs_with_other_inputs_are_refused(port: int, bundle: Path, dq_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    data = json.loads((folder / "bundle.json").read_text())
    if port == 0:
        data["inputs"].append({"name": "other", "dtype": "float32", "shape": [1]})
        data["inputs"][0]["shape"] = data["outputs"][0]["shape"] = [1, 2, 4, 16]
        text = "steps_g0.onnx has sample as float32 (1, 2, 8, 8), the bundle says float32 (1, 2, 4, 16)"
    else:
        data["inputs"][1] = {"name": "timestep", "dtype": "float32", "shape": [1]}
        text = "steps_g0.onnx takes 'step_vectors', the bundle has no such input"
    (folder / "bundle.json").write_text(json.dumps(data))
    assert_refused(run(dq_run, "--bundle", folder, "--report", tmp_path / "r"), text)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--emulator",), "--emulator needs --qnn-library"),
        (("--soc", "SM8750"), "--soc needs --qnn-library"),
        (("--soc", "SM8999"), "--soc must be one of SM8550, SM8650, SM8750, SM8850, got 'SM8999'"),
        (("--soc",), "--soc needs a value"),
        (("--soc", "SM8750", "--soc", "SM8750"), "--soc is given twice"),
        (("--qnn-library", "x.so"), "--qnn-library is for --emulator or --soc"),
        (("--emulator", "--qnn-library", "none/x.so"), "libQnnHtp.so; name Qualcomm's libonnxruntime_providers_qnn.so"),
        (("--threads", "2"), "unknown argument '--threads'"),
    ],
)
def test_bad_options_are_one_line(
    options: tuple[str, ...], text: str, bundle: Path, dq_run: Path, tmp_path: Path
) -> None:
    assert_refused(run(dq_run, "--bundle", bundle, "--report", tmp_path / "r", *options), text)
    assert not (tmp_path / "r").exists()


def test_bundles_of_another_target_are_one_line(dq_run: Path, tmp_path: Path) -> None:
    done = run(dq_run, "--bundle", GOLDEN / "step-vectors" / "bundle", "--report", tmp_path / "r")
    assert_refused(done, "the bundle is for target golden, this program runs only --target qnn")


def test_help_names_the_own_options(dq_run: Path) -> None:
    done = run(dq_run, "--help")
    assert done.returncode == 0
    for option in ("--bundle", "--teacher-forced", "--soc", "--emulator", "--qnn-library"):
        assert f"  {option}" in done.stdout


def test_chips_are_those_of_the_exporter() -> None:
    text = (SAMPLES / "qnn" / "src" / "chips.h").read_text()
    found = re.findall(r'\{"(SM\d+)", "(\d+)", "(\d+)"\}', text)
    assert {name: (int(model), int(arch)) for name, model, arch in found} == SOCS


def _places(headers: Path, folder: Path) -> str:
    program = folder / headers.name
    source = STAND_IN / "places.cpp"
    # not beside the source, or its folder would be searched first
    built = subprocess.run(
        ["g++", "-std=c++17", "-I", str(headers), "-x", "c++", "-", "-o", str(program)],
        input=source.read_text(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr[-2000:]
    return subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")
@pytest.mark.skipif(HEADERS not in os.environ, reason=f"needs {HEADERS}: the folder of ONNX Runtime's own header")
def test_the_stand_in_has_every_function_in_its_place(tmp_path: Path) -> None:
    assert _places(STAND_IN, tmp_path) == _places(Path(os.environ[HEADERS]), tmp_path)
