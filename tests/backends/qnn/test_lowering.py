"""Bundles of target qnn: what is in them, what is refused before any work, and that the whole sampler passes."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch
from torch import nn

from dq_toolchain import backends
from dq_toolchain.backends.common.running import run as run_bundle
from dq_toolchain.backends.qnn import lowering, vendor
from dq_toolchain.backends.qnn.graph.weights import weight_forms
from dq_toolchain.backends.qnn.settings import Settings
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.bundle import Bundle
from dq_toolchain.toolchain.quant.site import FloatOp
from dq_toolchain.toolchain.verdict.judge import validate
from tests import tiny, tiny_artifacts
from tests.backends.qnn.conftest import Lowered, artifact_of, lower, made
from tests.tiny_npu import for_npu

FILES = {"bundle.json", "model", "reference.safetensors", "placements.json", "step_vectors.safetensors"}


def small_artifact(**options: Any) -> tuple[Artifact, nn.Module]:
    """Where the network does not matter."""
    return for_npu(*tiny_artifacts.tiny_artifact(unet=tiny.small_unet(), steps=2, step_groups=1, **options))


def test_bundle_is_complete(form: Lowered) -> None:
    assert {path.name for path in form.folder.iterdir()} == FILES
    assert form.bundle.methods == ("steps_g0", "steps_g1")
    assert {path.name for path in (form.folder / "model").iterdir()} == {
        "weights.bin",
        *(path.name for path in form.graphs),
        *(f"{path.stem}.npu.onnx" for path in form.graphs if form.bundle.form == "a16"),
    }
    assert set(backends.load("qnn").methods(form.bundle, form.folder)) == set(form.bundle.methods)
    placements = json.loads((form.folder / "placements.json").read_text())
    products = [site.layer if site.operand == "input" else site.name for site in form.artifact.sites
                if site.operand in ("input", "q", "probs")]  # fmt: skip
    assert sorted(placements["integer"]) == sorted(products)
    assert placements["form"] == form.bundle.form
    assert form.bundle.inputs[1].name == "step_vectors"
    assert all(f"model/{path.name}" in placements["graphs"] for path in form.graphs)


def test_graphs_are_valid_onnx_of_batch_1(form: Lowered) -> None:
    for path in form.graphs:
        onnx.checker.check_model(str(path), full_check=True)
        model = onnx.load(str(path), load_external_data=False)
        assert [each.version for each in model.opset_import] == [21]
        assert [port.name for port in model.graph.input] == [port.name for port in form.bundle.inputs]
        for port in (*model.graph.input, *model.graph.output):
            shape = [size.dim_value for size in port.type.tensor_type.shape.dim]
            assert shape[0] == 1
            assert all(shape), "a size is not static"
        assert not {"Sin", "Cos", "GroupNormalization"} & {node.op_type for node in model.graph.node}


def test_arithmetic_is_said_by_product(tmp_path_factory: pytest.TempPathFactory) -> None:
    said = {name: {row.arithmetic for row in made(name, tmp_path_factory).bundle.operations} for name in ("a16", "a8")}
    assert said["a16"] == {"uint16 x int8", "uint16 x uint8", "fp16"}
    assert said["a8"] == {"uint8 x int8", "uint8 x uint8", "fp16"}
    narrow = made("a16-w4", tmp_path_factory)
    assert {row.arithmetic for row in narrow.bundle.operations} == {"uint16 x int4", "uint16 x int8", "fp16"}
    wide = sum(row.count for row in narrow.bundle.operations if row.arithmetic == "uint16 x int8")
    forms = weight_forms(narrow.artifact)
    assert wide == [form.dtype for form in forms.values()].count("INT8") * len(narrow.bundle.methods)


def test_weights_are_there_once_and_four_bits_take_half(tmp_path_factory: pytest.TempPathFactory) -> None:
    narrow = made("a16-w4", tmp_path_factory)
    places, sizes = [], dict[str, int]()
    for path in narrow.graphs:
        tensors = onnx.load(str(path), load_external_data=False).graph.initializer
        outside = {each.name: {pair.key: pair.value for pair in each.external_data} for each in tensors}
        places.append({name: (where["offset"], where["length"]) for name, where in outside.items() if where})
        sizes |= {name: int(length) for name, (_, length) in places[-1].items() if name.endswith(".weight_q")}
    assert places[0] == places[1]
    assert len(sizes) > 5
    forms = weight_forms(narrow.artifact)
    for name, size in sizes.items():
        layer = name.removesuffix(".weight_q")
        assert size == narrow.artifact.layers[layer].weight_q.numel() // (2 if forms[layer].dtype == "INT4" else 1)
    one, two = (path.stat().st_size for path in narrow.graphs)
    assert abs(one - two) < 100


@pytest.mark.parametrize("name", ["a16", "a8", "a16-w4", pytest.param("cross-attention", marks=pytest.mark.slow)])
def test_run_and_validate_pass(name: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The whole sampler: among what the verdict says is that the samples lose less than 1 dB against the simulation's."""
    found = made(name, tmp_path_factory)
    report = run_bundle(backends.load("qnn"), found.bundle, found.folder, tmp_path / "report", threads=1)
    verdict = validate(report, found.folder)
    assert not verdict.failed, verdict.to_json()
    said = json.loads(report.read_text())
    assert (said["runtime"]["name"], said["compute_unit"]) == ("ONNX Runtime", "CPU: not the NPU")


@pytest.mark.parametrize("step", ["audit", "smoke", "lint", "share_weights"])
def test_failure_anywhere_leaves_no_bundle(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise BackendError("planted")

    monkeypatch.setattr(lowering, step, fail)
    with pytest.raises(BackendError, match="planted"):
        lower(tmp_path, *small_artifact())
    assert [path.name for path in tmp_path.iterdir()] == ["calibration"]


def _refused() -> dict[str, tuple[Artifact, dict[str, Any], str]]:
    """Name -> artifact, settings, text."""
    plain, unet = tiny_artifacts.tiny_artifact(unet=tiny.small_unet(), steps=2, step_groups=1)
    wide, _ = for_npu(plain, unet)
    fitted, _ = for_npu(plain, unet, "a8")
    affine, _ = artifact_of("a8")
    key = next(index for index, site in enumerate(affine.sites) if site.operand == "k")
    off = affine.zero_point.clone()
    off[:, key] = -8
    layer = "down_blocks.0.resnets.0.conv1"
    tiny_scales = replace(wide.layers[layer], weight_scale=wide.layers[layer].weight_scale * 1e-9)
    norm = "conv_norm_out.bias"
    large = {**wide.float_parameters, norm: torch.full_like(wide.float_parameters[norm], 1e5)}
    a16 = "calibrate with --activation-bits 16 --outputs range --step-vectors"
    a8 = "calibrate with --activation-bits 8 --outputs fitted --step-vectors"
    return {
        "8 bits": (plain, {}, f"must be 16 for form a16 .* got 8 at site conv_in:input; {a16}"),
        "no ranges": (replace(wide, output_ranges=None), {}, f"needs ranges of the outputs .* it has none; {a16}"),
        "no step vectors": (
            replace(wide, step_vectors=None),
            {},
            f"takes step vectors, fp16 sinusoids .* has none; {a16}",
        ),
        "other form": (fitted, {}, f"got 8 at site conv_in:input; export with --form a8, or {a16}"),
        "other form again": (
            wide,
            {"form": "a8"},
            f"must be 8 for form a8 .* got 16 .*; export with --form a16, or {a8}",
        ),
        "8 bits without outputs": (plain, {"form": "a8"}, f"needs fitted outputs .* it has none; {a8}"),
        "second operand": (
            replace(affine, zero_point=off),
            {"form": "a8"},
            "zero_point must be 0 for the second operand .* got -8 at site .*:k; calibrate with --scheme symmetric",
        ),
        "unsupported": (
            replace(wide, float_operations=(FloatOp("up", "ConvTranspose3d", "is not supported"),)),
            {},
            "up is a ConvTranspose3d, which target 'qnn' does not hold",
        ),
        "kind": (
            replace(wide, sites=tuple(replace(site, kind="conv1d") for site in wide.sites)),
            {},
            "conv_in is a conv1d, which target 'qnn' does not hold in integers; .*--keep-float conv_in",
        ),
        "bias": (
            replace(wide, layers={**wide.layers, layer: tiny_scales}),
            {},
            f"{layer} has weights so small beside its bias .* in int32 fit 2.15e.09; .*--keep-float {layer}",
        ),
        "beyond fp16": (
            replace(wide, float_parameters=large),
            {},
            f"{norm} reaches 1e.05, fp16 holds at most 65504 .*; export for a target with --precision fp32",
        ),
    }


def test_what_no_graph_holds_is_refused_by_name_before_any_work(tmp_path: Path) -> None:
    reference = tiny_artifacts.tiny_reference(*small_artifact())
    for name, (artifact, settings, text) in _refused().items():
        folder, said = tmp_path / name, list[str]()
        small_artifact()[0].save(folder, reference)
        with pytest.raises(BackendError) as caught:
            lowering.lower(artifact, folder, folder / "out", Settings(**settings), said.append)
        assert re.search(text, str(caught.value)), (name, str(caught.value))
        assert "\n" not in str(caught.value)
        assert said == []
        assert not (folder / "out").exists()


@pytest.mark.parametrize(("settings", "flag"), [({"soc": "SM8750"}, "--soc"), ({"check_build": True}, "--check-build")])
def test_without_qualcomms_library(
    settings: dict[str, Any], flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vendor, "has_compiler", lambda: False)
    with pytest.raises(BackendError, match=rf"{flag} needs Qualcomm's compiler.*pip install 'dq-toolchain\[qnn\]'"):
        lower(tmp_path, *small_artifact(), **settings)
    assert not (tmp_path / "qnn").exists()


def test_what_is_compiled_is_in_the_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contexts are files of the bundle, one folder per chip; those of an earlier export do not stay."""
    asked = []

    def write_contexts(graphs: Any, out: Path, soc: str, say: Any) -> Any:
        asked.append((soc, [path.name for path in graphs]))
        out.mkdir()
        (out / "steps.bin").write_bytes(soc.encode())
        return SimpleNamespace(to_json=lambda: {"soc": soc})

    def check_build(graphs: Any, artifact: Artifact, soc: str, say: Any) -> Any:
        return SimpleNamespace(to_json=lambda: {"products": len(artifact.layers), "soc": soc})

    check, contexts = (SimpleNamespace(check_build=check_build), SimpleNamespace(write_contexts=write_contexts))
    monkeypatch.setitem(__import__("sys").modules, "dq_toolchain.backends.qnn.htp.check", check)
    monkeypatch.setitem(__import__("sys").modules, "dq_toolchain.backends.qnn.htp.contexts", contexts)
    monkeypatch.setattr(lowering, "require_compiler", lambda flag: None)
    found = lower(tmp_path, *small_artifact(), soc="SM8650, SM8750", check_build=True)
    assert asked == [(soc, ["steps_g0.npu.onnx"]) for soc in ("SM8650", "SM8750")]
    assert {"SM8650/steps.bin", "SM8750/steps.bin"} <= set(found.bundle.files)
    said = json.loads((found.folder / "placements.json").read_text())
    assert said["contexts"] == {soc: {"soc": soc} for soc in ("SM8650", "SM8750")}
    assert said["checked"] == {"products": len(found.artifact.layers), "soc": "SM8650"}
    again = lower(tmp_path, *small_artifact(), soc="SM8750")
    assert {path.name for path in again.folder.iterdir() if path.name.startswith("SM")} == {"SM8750"}
    assert "checked" not in json.loads((again.folder / "placements.json").read_text())


@pytest.mark.parametrize("text", ["", "SM8750,", "SM9999", "SM8750,SM8750", "sm8750"])
def test_chips_that_there_are_not(text: str) -> None:
    with pytest.raises(ValueError, match="takes SM8550, SM8650, SM8750, SM8850, comma-separated, each once"):
        Settings(soc=text)


def test_weights_cannot_be_exchanged(wide: Lowered, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(wide.folder, copy)
    weights = copy / "model" / "weights.bin"
    data = bytearray(weights.read_bytes())
    data[100] ^= 1
    weights.write_bytes(data)
    with pytest.raises(Exception, match=r"weights\.bin was changed"):
        Bundle.load(copy)
