"""The TensorRT part of the program against a TensorRT and a CUDA made of ONNX Runtime and host memory."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from dq_toolchain.backends.tensorrt.deploy.made_of import made_of
from dq_toolchain.toolchain.verdict.judge import validate
from tests.backends.tensorrt.conftest import Lowered, give_other_weights
from tests.runtime_samples.tensorrt.fake_cuda import FakeCuda
from tests.runtime_samples.tensorrt.fake_tensorrt import FakeTensorRT
from tests.runtime_samples.tensorrt.programs import expected_counts, module, read_report

MODES: dict[str, tuple[str, ...]] = {
    "resident": (),
    "plain": ("--no-cuda-graphs",),
    "reload": ("--reload",),
    "reload plain": ("--reload", "--no-cuda-graphs"),
}


class Device:
    """A machine with a GPU, as the program sees it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cuda = FakeCuda()
        self.tensorrt = FakeTensorRT(self.cuda, {"steps_g0": 100, "steps_g1": 300})
        self.program: Any = module("dq_run", monkeypatch)
        self.engine: Any = module("engine", monkeypatch)
        self.loader = module("cuda", monkeypatch).load_library
        self.network: Any = module("tensorrt_network", monkeypatch)
        monkeypatch.setitem(sys.modules, "tensorrt", self.tensorrt)
        monkeypatch.setattr(sys.modules["cuda"], "load_library", lambda: self.cuda)

    def run(self, bundle: Path, report: Path, *options: str) -> int:
        return int(self.program.main(["--bundle", str(bundle), "--report", str(report), *options]))


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(monkeypatch)


def with_engines(lowered: Lowered, folder: Path) -> Path:
    """A copy of the bundle whose engines were built."""
    shutil.copytree(lowered.folder, folder)
    (folder / "engines").mkdir()
    for method in lowered.bundle.methods:
        (folder / "engines" / f"{method}.plan").write_text(json.dumps(str(folder / "model" / f"{method}.onnx")))
        (folder / "engines" / f"{method}.made_of").write_text(made_of(method, lowered.bundle.files))
    return folder


@pytest.fixture
def bundle(lowered: Lowered, tmp_path: Path) -> Path:
    return with_engines(lowered, tmp_path / "bundle")


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_gives_the_latents_of_the_graphs(
    mode: str, bundle: Path, lowered: Lowered, host_report: Path, device: Device, tmp_path: Path
) -> None:
    assert device.run(bundle, tmp_path / "r", *MODES[mode]) == 0
    (data, tensors), expected = read_report(tmp_path / "r"), load_file(host_report / "report.safetensors")
    for name in ("latents", "outputs_at_simulation"):
        np.testing.assert_array_equal(tensors[name], expected[name])
    assert not validate(tmp_path / "r").failed
    device.cuda.assert_clean()
    resident, graphs = "--reload" not in MODES[mode], "--no-cuda-graphs" not in MODES[mode]
    assert data["runtime"] == {"name": "TensorRT (Python)", "version": "10.3.0"}
    assert data["compute_unit"].startswith("Orin GPU, ")
    assert ("all engines resident" in data["compute_unit"]) == resident
    assert ("no CUDA graphs" in data["compute_unit"]) != graphs
    assert data["versions"]["cuda"] == "12.6"
    assert data["load_ms"] > 0
    bundled = lowered.bundle
    methods = [bundled.method_of_step(k) for k in range(bundled.table.calls)]
    loads, captures, launches = expected_counts(methods, bundled.guidance != 1, lowered.reference.seeds, not resident)
    assert len(device.tensorrt.loaded) == loads
    assert device.tensorrt.loaded[: len(bundled.methods)] == list(bundled.methods)
    assert device.tensorrt.most_alive == (len(bundled.methods) if resident else 1)
    assert device.cuda.events.count("capture") == (captures if graphs else 0)
    assert device.cuda.events.count("launch") == (launches if graphs else 0)


def test_scratch_memory_is_shared(static_bundle: Path, device: Device, tmp_path: Path) -> None:
    """Resident: once, as large as the largest. One at a time: it grows when a larger engine comes, and the former goes first."""
    assert device.run(static_bundle, tmp_path / "r", "--seeds", "1") == 0
    assert [event for event in device.cuda.events if event.endswith((" 100", " 300"))] == ["allocate 300", "free 300"]
    device.cuda.events.clear()
    assert device.run(static_bundle, tmp_path / "r", "--seeds", "1", "--reload") == 0
    assert [event for event in device.cuda.events if event.endswith((" 100", " 300"))] == [
        "allocate 100",
        "free 100",
        "allocate 300",
        "free 300",
    ]


@pytest.fixture
def static_bundle(static: Lowered, tmp_path: Path) -> Path:
    return with_engines(static, tmp_path / "static")


def refused(device: Device, capsys: pytest.CaptureFixture[str], bundle: Path, *options: str) -> str:
    capsys.readouterr()
    assert device.run(bundle, bundle.parent / "r", *options) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert not (bundle.parent / "r").exists()
    return said


def test_what_the_runtime_refuses(static_bundle: Path, device: Device, capsys: pytest.CaptureFixture[str]) -> None:
    plan = static_bundle / "engines" / "steps_g1.plan"
    device.cuda.limit = 400
    said = refused(device, capsys, static_bundle)
    assert "cudaMalloc failed with CUDA error 2 (out of memory); free GPU memory or take --reload" in said
    device.cuda.limit = 1 << 30
    device.cuda.on_capture = 901
    said = refused(device, capsys, static_bundle)
    assert "steps_g0.plan cannot be recorded as a CUDA graph (cudaStreamEndCapture failed with CUDA error 901" in said
    assert "take --no-cuda-graphs" in said
    device.cuda.on_capture, device.tensorrt.fail_after = 0, 3
    assert "could not execute steps_g1.plan" in refused(device, capsys, static_bundle)
    device.tensorrt.fail_after, device.tensorrt.dtype = 1 << 30, "half"
    assert "steps_g0.plan has 'sample', half of shape" in refused(device, capsys, static_bundle)
    device.tensorrt.dtype = "float"
    plan.write_bytes(b"foreign")
    said = refused(device, capsys, static_bundle)
    assert "steps_g1.plan does not load: it is damaged or was built for another TensorRT or GPU" in said
    assert said.endswith("; TensorRT says: Version tag does not match.\n")
    plan.unlink()
    assert "build it on this device with: python3 build_engines.py" in refused(device, capsys, static_bundle)
    assert "build it on this device with" in refused(device, capsys, static_bundle, "--reload")


@pytest.mark.parametrize("options", [(), ("--reload",)], ids=["resident", "reload"])
def test_engines_of_other_weights_are_refused(
    options: tuple[str, ...], static_bundle: Path, device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    """As when a new bundle was copied over the old one."""
    beside = static_bundle / "engines" / "steps_g1.made_of"
    good = beside.read_text()
    beside.unlink()
    said = refused(device, capsys, static_bundle, *options)
    assert "it is not known what steps_g1.plan was made of" in said
    assert "python3 build_engines.py" in said
    beside.write_text(good)
    give_other_weights(static_bundle)
    said = refused(device, capsys, static_bundle, *options)
    assert "steps_g0.plan was not made of the graph and weights of this bundle; build it on this device with" in said
    assert device.tensorrt.loaded == []


def test_a_failure_gives_everything_back(
    static_bundle: Path, device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    device.tensorrt.fail_after = 3
    assert "could not execute steps_g1.plan" in refused(device, capsys, static_bundle)
    device.cuda.assert_clean()


def test_no_cuda_and_no_tensorrt(
    static_bundle: Path, device: Device, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["cuda"], "LIBRARIES", ("libcudart-that-is-nowhere.so",))
    monkeypatch.setattr(sys.modules["cuda"], "load_library", device.loader)
    assert "no libcudart.so is found" in refused(device, capsys, static_bundle)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert "Python does not find tensorrt" in refused(device, capsys, static_bundle)


class Misused:
    """Ways in which the program could be wrong, each caught by the fakes."""

    @staticmethod
    def capture_first(engine: Any, cuda: Any, graphs: bool) -> None:
        engine.record(cuda)

    @staticmethod
    def wait_in_capture(engine: Any, cuda: Any, graphs: bool) -> None:
        engine._enqueue(cuda)
        cuda.synchronize()
        cuda.begin_capture()
        engine._enqueue(cuda)
        cuda.synchronize()

    @staticmethod
    def capture_while_queued(engine: Any, cuda: Any, graphs: bool) -> None:
        engine._enqueue(cuda)
        cuda.begin_capture()


def first_complaint(device: Device, bundle: Path, *options: str) -> str:
    """What the fakes object to first; giving things back after it may be objected to as well."""
    with pytest.raises(AssertionError) as caught:
        device.run(bundle, bundle.parent / "r", *options)
    error: BaseException = caught.value
    while error.__context__ is not None:
        error = error.__context__
    return str(error)


@pytest.mark.parametrize(("mistake", "text"), [
    ("capture_first", "capture before a first execution"),
    ("wait_in_capture", "synchronization during capture"), ("capture_while_queued", "capture while work is queued"),
])  # fmt: skip
def test_the_fake_bites(
    mistake: str, text: str, static_bundle: Path, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device.engine.Engine, "run", getattr(Misused, mistake))
    assert re.search(text, first_complaint(device, static_bundle))


def test_the_fake_notices_freed_memory(static_bundle: Path, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scratch memory that grows while a context still refers to it."""
    monkeypatch.setattr(device.network.TensorRTNetwork, "_drop", lambda network: None)
    assert "freed or never allocated" in first_complaint(device, static_bundle, "--reload")


def test_the_fake_notices_a_missing_wait(static_bundle: Path, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the output is read before it was written, and engines go while their work is queued."""
    monkeypatch.setattr(sys.modules["cuda"].Cuda, "synchronize", lambda cuda: None)
    assert "the context is gone" in first_complaint(device, static_bundle, "--no-cuda-graphs")
