"""Engines are built, checked and executed as on a device, by a TensorRT that is made of ONNX Runtime."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dq_toolchain.backends.common.onnx.session import Sessions
from dq_toolchain.backends.tensorrt.deploy.build_engines import main
from dq_toolchain.backends.tensorrt.deploy.graph_types import trtexec_flags
from dq_toolchain.backends.tensorrt.deploy.int8_layers import judge
from dq_toolchain.backends.tensorrt.runtime import device
from dq_toolchain.backends.tensorrt.runtime.engines import Engines
from dq_toolchain.toolchain.errors import BackendError
from tests.backends.tensorrt import fake_tensorrt
from tests.backends.tensorrt.conftest import Lowered, give_other_weights


def test_engines_give_what_the_graphs_give(bundle: Path, static: Lowered) -> None:
    assert main([str(bundle)]) == 0
    fake_tensorrt.events.clear()
    engines = Engines(fake_tensorrt, bundle, static.bundle.methods, device="cpu")
    sessions = Sessions(bundle / "model")
    for k in range(static.artifact.table.calls):
        method, inputs = static.bundle.method_of_step(k), static.inputs(k)
        assert torch.equal(engines(method, inputs), sessions(method, inputs))
    assert fake_tensorrt.events == ["load steps_g0", "load steps_g1"]  # each once, when its step group comes


def test_building_resumes_and_shares_its_timings(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(bundle)]) == 0
    said = capsys.readouterr().out
    placements = json.loads((bundle / "placements.json").read_text())
    count = len(placements["int8"])
    assert f"steps_g1: {count} of {count} sites INT8, 0 in float, 0 inside" in said
    builds = [event for event in fake_tensorrt.events if not event.startswith("load")]
    assert builds == [
        "timing cache of 0 bytes",
        "build steps_g0 strong=0 int8+fp16",
        "timing cache of 5 bytes",
        "build steps_g1 strong=0 int8+fp16",
    ]
    (bundle / "engines" / "steps_g1.plan").unlink()
    fake_tensorrt.events.clear()
    assert main([str(bundle)]) == 0
    assert [event for event in fake_tensorrt.events if event.startswith("build")] == [
        "build steps_g1 strong=0 int8+fp16"
    ]
    assert not list((bundle / "engines").glob("*.part"))


def test_a_layer_in_float_is_named(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake_tensorrt.in_float.add("mid_block.resnets.0.conv1")
    assert main([str(bundle)]) == 1
    assert "in float: mid_block.resnets.0.conv1" in capsys.readouterr().out
    assert main([str(bundle), "--check"]) == 1
    fake_tensorrt.in_float.clear()
    assert main([str(bundle), "--force"]) == 0


FP16 = ("INT8", "FP16")
BUILT = {
    "JetPack 6": ("10.3.0", "fp32", True, False, FP16),
    "JetPack 6, beyond fp16": ("10.3.0", "fp32", False, False, ("INT8",)),
    "JetPack 7.1": ("10.13.3", "fp16", True, True, ()),
    "JetPack 7.2": ("10.16.2.10", "fp16", True, True, ()),
    "JetPack 7.2 with a bundle for JetPack 6": ("10.16.2.10", "fp32", True, False, FP16),
    "JetPack 7.2.2": ("11.4.1", "fp16", True, True, ()),
    "JetPack 7.2.2 with a bundle for JetPack 6": ("11.4.1", "fp32", True, True, ()),
    "JetPack 7.2.2, beyond fp16": ("11.4.1", "fp32", False, True, ()),
}
"""Name -> version on the device; precision of the graphs, fp16 kernels allowed; strongly typed, flags of the builder."""
REFUSED = {
    "JetPack 6 with a bundle for JetPack 7": (
        "10.3.0",
        "fp16",
        "takes fp32 graphs, .* fp16; export again with --jetpack 6",
    ),
    "JetPack 5": ("8.5.2", "fp32", r"TensorRT 8\.5 does not take these graphs .*; use JetPack 6\.1 or later"),
}


def _on_device(bundle: Path, version: str, precision: str, fp16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundle's graphs are said to be of a precision, and TensorRT to be of a version, with that version's flags."""
    monkeypatch.setattr(fake_tensorrt, "__version__", version)
    if version.startswith("11."):
        monkeypatch.setattr(fake_tensorrt, "BuilderFlag", SimpleNamespace())
    path = bundle / "placements.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"precision": precision, "fp16": fp16}))


@pytest.mark.parametrize("name", BUILT)
def test_types_follow_the_version_on_the_device(
    bundle: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    version, precision, fp16, strong, flags = BUILT[name]
    _on_device(bundle, version, precision, fp16, monkeypatch)
    assert main([str(bundle)]) == 0
    assert f"build steps_g0 strong={2 * strong} {'+'.join(flags).lower()}" in fake_tensorrt.events
    said = capsys.readouterr().out
    assert ("keeps the types of the graph: what is not INT8 runs in fp32" in said) == (strong and precision == "fp32")
    assert ("--jetpack 7" in said) == (strong and precision == "fp32" and fp16)


@pytest.mark.parametrize("name", BUILT)
def test_trtexec_is_told_the_same(name: str, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version, precision, fp16, strong, flags = BUILT[name]
    major, minor, patch = map(int, version.split(".")[:3])
    told = trtexec_flags(10000 * major + 100 * minor + patch, precision, fp16)
    assert told == (["--stronglyTyped"] if strong and major < 11 else [f"--{flag.lower()}" for flag in flags])


@pytest.mark.parametrize("name", REFUSED)
def test_versions_that_do_not_take_the_graph(bundle: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    version, precision, text = REFUSED[name]
    _on_device(bundle, version, precision, True, monkeypatch)
    with pytest.raises(SystemExit, match=text):
        main([str(bundle)])
    assert not list((bundle / "engines").glob("*.plan"))
    major, minor, patch = map(int, version.split("."))
    with pytest.raises(SystemExit, match=text):
        trtexec_flags((10000 * major if major > 9 else 1000 * major) + 100 * minor + patch, precision)


def test_missing_graph_is_one_line(bundle: Path) -> None:
    (bundle / "model" / "steps_g1.onnx").unlink()
    with pytest.raises(SystemExit, match=r"steps_g1\.onnx: file: is not there"):
        main([str(bundle)])


def test_engines_that_are_missing_or_foreign(bundle: Path, static: Lowered) -> None:
    with pytest.raises(
        BackendError, match=r"steps_g0\.plan is missing; build it on this device with: python3 .*build_engines"
    ):
        Engines(fake_tensorrt, bundle, static.bundle.methods, device="cpu")
    assert main([str(bundle)]) == 0
    (bundle / "engines" / "steps_g0.plan").write_bytes(b"foreign")
    with pytest.raises(BackendError, match=r"steps_g0\.plan was built for another TensorRT or GPU; .*--force"):
        Engines(fake_tensorrt, bundle, static.bundle.methods, device="cpu")("steps_g0", static.inputs(0))


def test_engines_of_other_weights_are_refused(bundle: Path, static: Lowered) -> None:
    """As when a new bundle was copied over the old one."""
    assert main([str(bundle)]) == 0
    give_other_weights(bundle)
    build = r"build it on this device with: python3 .*build_engines\.py$"
    said = rf"steps_g0\.plan was not made of the graph and weights of this bundle, steps_g0\.made_of says so; {build}"
    with pytest.raises(BackendError, match=said):
        Engines(fake_tensorrt, bundle, static.bundle.methods, device="cpu")
    (bundle / "engines" / "steps_g0.made_of").unlink()
    with pytest.raises(BackendError, match=rf"steps_g0\.made_of is missing; .* version 0\.1 .*; {build}"):
        Engines(fake_tensorrt, bundle, static.bundle.methods, device="cpu")
    assert main([str(bundle)]) == 0
    Engines(fake_tensorrt, bundle, static.bundle.methods, device="cpu")


def test_runs_on_tensorrt_where_there_is_a_gpu(bundle: Path, static: Lowered, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main([str(bundle)]) == 0
    monkeypatch.setattr(device, "tensorrt", lambda: fake_tensorrt)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Orin")
    monkeypatch.setattr(
        device, "Engines", lambda library, folder, methods: Engines(library, folder, methods, device="cpu")
    )
    execute, runtime = device.open_bundle(static.bundle, bundle, None)
    assert (runtime.name, runtime.version, runtime.unit) == ("TensorRT", "10.3.0", "Orin")
    inputs = static.inputs(0)
    out = execute(0, inputs["sample"], inputs["timestep"], {"class_labels": inputs["class_labels"]})
    assert torch.equal(out, Sessions(bundle / "model")("steps_g0", inputs))
    with pytest.raises(BackendError, match="threads cannot be set for TensorRT"):
        device.open_bundle(static.bundle, bundle, 2)


def test_judgement_of_layers() -> None:
    def layer(kind: str, datatype: str, *sites: str) -> dict[str, object]:
        metadata = "\x1e".join(f"[ONNX Layer: {site}]" for site in sites)
        return {"Name": "x", "LayerType": kind, "Inputs": [{"Format/Datatype": datatype}], "Metadata": metadata}

    layers = [
        "a name only", layer("kgen", "Float", "a.quantize"), layer("CaskConvolution", "Int8 NC/32HW32", "a"),
        layer("correlation", "Half", "b"), layer("kgen", "Int8", "c"), layer("runtime_fusion", "Int8", "d"),
        layer("gemm", "Int8", "e.1"), layer("gemm", "Half", "e"),
    ]  # fmt: skip
    found = judge(layers, ["a", "b", "c", "d", "e", "f"])
    assert found.int8 == ["a"]
    assert found.in_float == ["b", "d", "e"]
    assert found.unseen == ["c", "f"]
