"""The bundle: complete, sealed, with weights once, executable, and absent where anything fails."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import onnx
import pytest
from torch import nn

from dq_toolchain import backends
from dq_toolchain.backends.common.running import run as run_bundle
from dq_toolchain.backends.tensorrt import lowering
from dq_toolchain.backends.tensorrt.proof import nvidia
from dq_toolchain.backends.tensorrt.settings import Settings
from dq_toolchain.backends.tensorrt.support import OPERATIONS
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.quant.site import FloatOp, LayerKind, Site
from dq_toolchain.toolchain.verdict.judge import validate
from tests import tiny, tiny_artifacts
from tests.backends.tensorrt.conftest import Lowered, attention_unet, lower, needs_nvidia


def small_artifact() -> tuple[Artifact, nn.Module]:
    """Where the network does not matter: 17 sites, wide enough for INT8 kernels."""
    return tiny_artifacts.tiny_artifact(unet=tiny.small_unet(width=16))


FILES = {
    "bundle.json",
    "model",
    "reference.safetensors",
    "placements.json",
    "build_engines.py",
    "graph_types.py",
    "int8_layers.py",
    "made_of.py",
    "build_engines.sh",
    "bench.sh",
}


def test_every_kind_of_layer_has_an_operation() -> None:
    assert set(OPERATIONS) == set(get_args(LayerKind))


def test_bundle_is_complete(form: Lowered) -> None:
    ratio = form.bundle.form.startswith("ratio")
    inputs = {"ranges.safetensors"} if ratio else set()
    inputs |= set() if form.artifact.step_vectors is None else {"step_vectors.safetensors"}
    assert {path.name for path in form.folder.iterdir()} == FILES | inputs
    assert form.bundle.methods == (("steps",) if ratio else ("steps_g0", "steps_g1"))
    assert {path.name for path in (form.folder / "model").iterdir()} == {
        "weights.bin",
        *(path.name for path in form.graphs),
    }
    placements = json.loads((form.folder / "placements.json").read_text())
    products = [site for site in form.artifact.sites if site.operand in ("input", "q", "probs")]
    assert len(placements["int8"]) + len(placements["float"]) == len(products)
    assert set(placements["float"]) == form.narrow
    assert all(("model/" + path.name) in placements["graphs"] for path in form.graphs)


def test_graphs_are_valid_onnx_with_named_ports(form: Lowered) -> None:
    for path in form.graphs:
        onnx.checker.check_model(str(path), full_check=True)
        graph = onnx.load(str(path), load_external_data=False)
        assert [each.version for each in graph.opset_import] == [19]
        assert [port.name for port in graph.graph.input] == [port.name for port in form.bundle.inputs]
        assert [port.name for port in graph.graph.output] == ["output"]


def test_weights_are_there_once(tmp_path: Path) -> None:
    one, three = (
        lower(tmp_path / str(groups), *tiny_artifacts.tiny_artifact(steps=3, step_groups=groups)) for groups in (1, 3)
    )
    weights = [(made.folder / "model" / "weights.bin").read_bytes() for made in (one, three)]
    assert weights[0] == weights[1]
    large = [layer.weight_q.numel() for layer in three.artifact.layers.values() if layer.weight_q.numel() > 1024]
    assert len(weights[0]) >= sum(large)
    sizes = [path.stat().st_size for path in three.graphs]
    assert len(sizes) == 3
    assert max(sizes) - min(sizes) < 100


@pytest.mark.parametrize("condition", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["labels", "text"])
@pytest.mark.parametrize(
    "options", [{}, pytest.param({"step_groups_as": "input"}, marks=pytest.mark.slow), {"jetpack": 7}], ids=str
)
def test_run_and_validate_pass(options: dict[str, Any], condition: bool, tmp_path: Path) -> None:
    """The whole sampler: among what the verdict says is that the samples lose less than 1 dB against the simulation's."""
    artifact, unet = tiny_artifacts.tiny_artifact(unet=tiny.tiny_condition_unet() if condition else None)
    made = lower(tmp_path, replace(artifact, guidance=2.0), unet, **options)
    report = run_bundle(backends.load("tensorrt"), made.bundle, made.folder, tmp_path / "report", threads=1)
    verdict = validate(report, made.folder)
    assert not verdict.failed, verdict.to_json()
    said = json.loads(report.read_text())
    assert said["runtime"]["name"] == "ONNX Runtime"
    assert "not TensorRT" in said["compute_unit"]


def test_engines_of_an_older_bundle_go_with_it(tmp_path: Path) -> None:
    """They hold its weights, and bear the names of the new ones."""
    (tmp_path / "tensorrt" / "engines").mkdir(parents=True)
    (tmp_path / "tensorrt" / "engines" / "steps_g0.plan").write_bytes(b"old")
    (tmp_path / "tensorrt" / "report.json").write_text("mine")
    made = lower(tmp_path, *small_artifact())
    assert {path.name for path in made.folder.iterdir()} == FILES | {"report.json"}


def test_weights_cannot_be_exchanged(static: Lowered, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(static.folder, copy)
    weights = copy / "model" / "weights.bin"
    data = bytearray(weights.read_bytes())
    data[100] ^= 1
    weights.write_bytes(data)
    with pytest.raises(Exception, match=r"weights\.bin was changed"):
        type(static.bundle).load(copy)


@pytest.mark.parametrize("step", ["audit", "smoke", "lint", "share_weights"])
def test_failure_anywhere_leaves_no_bundle(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise BackendError("planted")

    monkeypatch.setattr(lowering, step, fail)
    with pytest.raises(BackendError, match="planted"):
        lower(tmp_path, *small_artifact())
    assert [path.name for path in tmp_path.iterdir()] == ["calibration"]


def _with_site(site: Site, **changes: object) -> Site:
    return replace(site, **changes)  # type: ignore[arg-type]


def test_what_no_engine_holds_is_refused_by_name(tmp_path: Path) -> None:
    artifact, unet = tiny_artifacts.tiny_artifact()
    site, reference = artifact.sites[3], tiny_artifacts.tiny_reference(artifact, unet)
    cases = [
        (
            tiny_artifacts.tiny_artifact(scheme="affine")[0],
            {},
            r"zero_point must be 0 for target 'tensorrt', got .* at site conv_in:input",
        ),
        (
            replace(artifact, sites=(*artifact.sites[:3], _with_site(site, bits=6), *artifact.sites[4:])),
            {},
            f"activation bits must be 8 for target 'tensorrt', got 6 at site {site.name}",
        ),
        (
            replace(artifact, float_operations=(FloatOp("up", "ConvTranspose2d", "is not supported"),)),
            {},
            "up is a ConvTranspose2d, which target 'tensorrt' does not hold",
        ),
        (
            tiny_artifacts.tiny_artifact(attention=True, unet=attention_unet())[0],
            {"step_groups_as": "input"},
            "--step-groups-as input holds no integers at attention",
        ),
        (
            tiny_artifacts.tiny_artifact(attention=True, unet=attention_unet(head=8))[0],
            {},
            r"attentions\.0:q would run in float on NVIDIA's builder: INT8 attention takes heads of 16, 32, 64 channels, "
            "here are 8",
        ),
        (
            artifact,
            {"precision": "fp16"},
            r"precision must be fp32 for JetPack 6 \(TensorRT 10\.3\), got fp16; .*; leave --precision out, or add --jetpack 7",
        ),
    ]
    for number, (refused, settings, text) in enumerate(cases):
        folder = tmp_path / str(number)
        refused.save(folder, reference)
        section = Settings(**settings)  # type: ignore[arg-type]
        with pytest.raises(BackendError, match=text):
            lowering.lower(refused, folder, folder / "out", section, lambda _: None)
        assert not (folder / "out").exists()


def test_compiler_that_is_missing_or_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "is_installed", lambda: False)
    with pytest.raises(
        BackendError, match=r"--check-build needs NVIDIA's TensorRT for RTX .*pip install --no-deps tensorrt-rtx"
    ):
        lower(tmp_path / "missing", *small_artifact(), check_build=True)
    monkeypatch.setattr(nvidia, "is_installed", lambda: True)
    layers = [
        {
            "Name": "conv",
            "LayerType": "correlation",
            "Inputs": [{"Format/Datatype": "Half"}],
            "Metadata": "[ONNX Layer: down_blocks.0.resnets.0.conv1]",
        }
    ]
    for result, text in (
        ({"version": "1", "errors": ["broken"], "layers": []}, r"refuses steps_g0\.onnx: broken"),
        ({"version": "1", "errors": [], "layers": layers}, "float that should be INT8, the first is down_blocks"),
    ):
        monkeypatch.setattr(nvidia, "compile_graph", lambda path, result=result: result)
        with pytest.raises(BackendError, match=text):
            lower(tmp_path / "refused", *small_artifact(), check_build=True)
        assert not (tmp_path / "refused" / "tensorrt").exists()


@needs_nvidia
@pytest.mark.nvidia
def test_compiled_bundles_say_so(tmp_path: Path) -> None:
    made = lower(tmp_path, *tiny_artifacts.tiny_artifact(), check_build=True)
    said = json.loads((made.folder / "placements.json").read_text())
    assert said["compiled"]["int8"] == said["compiled"]["promised"] == len(said["int8"])
    assert all(
        "seen: TensorRT for RTX" in row.where for row in made.bundle.operations if row.arithmetic == "int8 x int8"
    )


def test_more_tokens_than_a_kernel_takes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "SIZE", 48)
    artifact, unet = tiny_artifacts.tiny_artifact(attention=True, unet=attention_unet(size=48), steps=2)
    with pytest.raises(BackendError, match="INT8 attention takes 512 tokens, here are 576"):
        lower(tmp_path, artifact, unet)
