"""The C++ program: its types against NVIDIA's headers where they are, its behaviour against fakes under sanitizers."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime_samples.building import fakes_of_nvidia, sanitized_programs
from tests.runtime_samples.tensorrt.cpp import (
    FIRST_SCRATCH,
    SANITIZE,
    build_fakes,
    bundle_of,
    call,
    give_other_weights,
    must,
    plan_of,
)
from tests.runtime_samples.tensorrt.programs import (
    CASES,
    JETSON,
    assert_golden,
    assert_refused,
    expected_counts,
    module,
    read_report,
)

needs_compiler = pytest.mark.skipif(not (shutil.which("g++") and shutil.which("cmake")), reason="needs g++ and cmake")
SOURCES = sorted((JETSON / "cpp").glob("*.cpp"))
CORE = JETSON.parent / "cpp_core" / "src"
INCLUDE = "DQ_TENSORRT_INCLUDE"
MODES: dict[str, tuple[str, ...]] = {
    "resident": (),
    "plain": ("--no-cuda-graphs",),
    "reload": ("--reload",),
    "reload plain": ("--reload", "--no-cuda-graphs"),
}
MISTAKES = {
    "capture first": "capture before a first execution", "wait in capture": "synchronization during capture",
    "no wait": "capture while work is queued", "freed input": "memory was freed", "freed scratch": "memory was freed",
    "context gone": "the context is gone", "graph gone": "launched after it was destroyed"}  # fmt: skip


@pytest.fixture(scope="session")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fakes_of_nvidia(tmp_path_factory)


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sanitized_programs(tmp_path_factory) / "dq_run_trt"


def run(program: Path, bundle: Path, *options: object, **environment: str) -> Any:
    return call(program, "--bundle", bundle, "--report", bundle.parent / "report", *options, **environment)


@needs_compiler
@pytest.mark.skipif(
    not os.environ.get(INCLUDE),
    reason=f"needs {INCLUDE}: folders with NvInfer.h, cuda_runtime_api.h and crt/, separated by ':' as in PATH",
)
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_types(source: Path) -> None:
    # as system headers: NVIDIA's own are not free of warnings
    folders = [part for folder in os.environ[INCLUDE].split(os.pathsep) for part in ("-isystem", folder)]
    must("g++", "-fsyntax-only", "-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{CORE}", *folders, source)


@needs_compiler
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mode", MODES)
def test_golden(mode: str, case: str, program: Path, tmp_path: Path) -> None:
    bundle, log = bundle_of(case, tmp_path), tmp_path / "log"
    done = run(program, bundle, *MODES[mode], FAKE_LOG=str(log))
    assert done.returncode == 0, done.stderr
    data = assert_golden_of(tmp_path / "report", case, bundle)
    assert data["runtime"] == {"name": "TensorRT (C++)", "version": "10.3.0"}
    resident, graphs = "--reload" not in MODES[mode], "--no-cuda-graphs" not in MODES[mode]
    unit = f"Orin GPU, {'all engines resident' if resident else 'one engine at a time'}, {'' if graphs else 'no '}CUDA graphs"
    assert data["compute_unit"] == unit
    assert data["versions"]["cuda"] == "12.6"
    assert data["load_ms"] > 0
    assert data["peak_memory_bytes"] > 1 << 20
    assert all(time > 0 for time in data["step_ms"])
    content = json.loads((bundle / "bundle.json").read_text())
    names, guided, methods = content["methods"], content["guidance"] != 1, len(content["methods"])
    steps = [names[group if methods > 1 else 0] for group, steps in enumerate(content["step_groups"]) for _ in steps]
    loads, captures, launches = expected_counts(steps, guided, len(data["final"]["psnr"]), not resident)
    events = log.read_text().splitlines()
    loaded = [event for event in events if event.startswith("load")]
    assert len(loaded) == loads
    assert max(loaded) == f"load, alive {methods if resident else 1}"
    assert events.count("capture") == (captures if graphs else 0)
    assert events.count("launch") == (launches if graphs else 0)
    scratch = [event for event in events if re.fullmatch(rf"(allocate|free) {FIRST_SCRATCH // 100}\d\d", event)]
    sizes = [FIRST_SCRATCH + methods - 1] if resident else range(FIRST_SCRATCH, FIRST_SCRATCH + methods)
    assert scratch == [f"{what} {size}" for size in sizes for what in ("allocate", "free")]


def assert_golden_of(report: Path, case: str, bundle: Path) -> dict[str, Any]:
    """Figures are golden; the bundle's hash is another, as its target was changed."""
    path = report / "report.json"
    data: dict[str, Any] = json.loads(path.read_text())
    assert data["target"] == "tensorrt"
    assert data["bundle_sha256"] == hashlib.sha256((bundle / "bundle.json").read_bytes()).hexdigest()
    golden = json.loads((JETSON.parent / "golden" / case / "expected" / "report.json").read_text())
    path.write_text(json.dumps(data | {"target": "golden", "bundle_sha256": golden["bundle_sha256"]}))
    assert_golden(report, case)
    return data


@needs_compiler
def test_first_seed_without_the_second_half(program: Path, tmp_path: Path) -> None:
    bundle = bundle_of("dpm-history", tmp_path)
    assert run(program, bundle, "--reload", "--seeds", 1, "--teacher-forced", "off").returncode == 0
    data, tensors = read_report(tmp_path / "report")
    assert set(tensors) == {"latents"}
    assert len(data["final"]["psnr"]) == 1


@needs_compiler
def test_what_is_refused(program: Path, tmp_path: Path) -> None:
    bundle = bundle_of("dpm-history", tmp_path)
    data = json.loads((bundle / "bundle.json").read_text())
    plan = bundle / "engines" / "steps_g1.plan"
    good = plan.read_text()
    assert_refused(
        run(program, bundle, FAKE_MEMORY="1500"), "cudaMalloc failed with CUDA error 2 (out of memory)", "take --reload"
    )
    assert_refused(
        run(program, bundle, FAKE_NO_CAPTURE="1"), "steps_g0.plan cannot be recorded", "take --no-cuda-graphs"
    )
    assert_refused(run(program, bundle, FAKE_ENQUEUES="1"), "steps_g0.plan", "could not execute")
    assert_refused(run(program, bundle, "--no-cuda-graphs", FAKE_ENQUEUES="3"), "could not execute steps_g1.plan")
    half = [port | {"dtype": "float16"} for port in data["outputs"]]
    plan.write_text(plan_of(tmp_path, data | {"outputs": half}, 10))
    assert_refused(
        run(program, bundle), "steps_g1.plan has 'output', dtype number 1 of shape", "the bundle has float32"
    )
    plan.write_text(plan_of(tmp_path, data | {"outputs": [data["outputs"][0] | {"name": "other"}]}, 10))
    assert_refused(run(program, bundle), "steps_g1.plan has 'other'", "none of that name")
    plan.write_text("of another TensorRT")
    assert_refused(
        run(program, bundle), "steps_g1.plan does not load", "--force", "TensorRT says: Version tag does not match."
    )
    assert_refused(run(program, bundle, "--reload"), "steps_g1.plan does not load")
    plan.unlink()
    assert_refused(run(program, bundle), "steps_g1.plan is missing", "python3 build_engines.py")
    plan.write_text(good)
    made_of = plan.with_suffix(".made_of")
    made_of.unlink()
    said = "it is not known what steps_g1.plan was made of"
    assert_refused(run(program, bundle), said, "python3 build_engines.py", "version 0.1 has no such file")
    made_of.write_text(plan.with_name("steps_g0.made_of").read_text())
    said = "steps_g1.plan was not made of the graph and weights of this bundle"
    assert_refused(run(program, bundle, "--reload"), said, "python3 build_engines.py")
    made_of.write_text(made_of.read_text().replace("steps_g0", "steps_g1"))
    give_other_weights(bundle, "model/weights.bin")
    assert_refused(run(program, bundle), "steps_g0.plan was not made of the graph and weights of this bundle")
    (bundle / "model.bin").write_text("other")
    assert_refused(run(program, bundle), "model.bin")
    assert_refused(run(program, JETSON.parent / "golden" / "overflow" / "bundle", "--seeds", 1), "golden")
    assert_refused(call(program, "--bundle", bundle), "--report")
    assert not (tmp_path / "report" / "report.json").exists()


@needs_compiler
def test_help(program: Path) -> None:
    done = call(program, "--help")
    assert done.returncode == 0
    for option in ("--bundle", "--report", "--seeds", "--teacher-forced", "--reload", "--no-cuda-graphs"):
        assert option in done.stdout


@needs_compiler
def test_the_fakes_bite(fakes: Path, tmp_path: Path) -> None:
    bundle = bundle_of("dpm-history", tmp_path)
    misuse, plan = tmp_path / "misuse", bundle / "engines" / "steps_g0.plan"
    plan.write_text(plan.read_text().replace("warm_ups 2", "warm_ups 99"))
    lib = fakes / "lib"
    must(
        "g++",
        *SANITIZE,
        Path(__file__).parent / "fake" / "misuse.cpp",
        "-o",
        misuse,
        f"-L{lib}",
        "-lnvinfer",
        "-lcudart",
        f"-Wl,-rpath,{lib}",
    )
    assert call(misuse, plan, "none").returncode == 0
    for mistake, text in MISTAKES.items():
        done = call(misuse, plan, mistake)
        assert done.returncode == 70, mistake + done.stderr
        assert done.stderr.startswith(f"fake: {text}"), mistake + done.stderr


@needs_compiler
def test_python_calls_a_real_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The ctypes of the Python program against functions with C types: sizes, pointers and texts arrive."""
    root = build_fakes(tmp_path / "root", "-std=c++17", "-fPIC")
    cuda, errors = module("cuda", monkeypatch), module("errors", monkeypatch)
    monkeypatch.setattr(cuda, "LIBRARIES", ("libcudart-that-is-nowhere.so", str(root / "lib" / "libcudart.so")))
    monkeypatch.setenv("FAKE_MEMORY", "1000")
    monkeypatch.setattr(ctypes, "DEFAULT_MODE", ctypes.RTLD_LOCAL)
    device = cuda.Cuda()
    assert (device.device_name(), device.version()) == ("Orin", "12.6")
    source, target = np.arange(10, dtype=np.float32), np.zeros(10, np.float32)
    address = device.allocate(source.nbytes)
    device.upload(address, source)
    device.download(target, address)
    assert not target.any()  # queued, not done
    device.synchronize()
    np.testing.assert_array_equal(target, source)
    device.begin_capture()
    graph = device.end_capture()
    device.launch(graph)
    device.synchronize()
    device.destroy(graph)
    device.begin_capture()
    device.abandon_capture()
    with pytest.raises(errors.Refused, match=r"cudaMalloc failed with CUDA error 2 \(out of memory\)"):
        device.allocate(2000)
    device.free(address)
    device.close()
