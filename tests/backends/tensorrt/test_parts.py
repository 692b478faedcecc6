"""Text encoders and decoders for TensorRT: executed, compiled, built on a device, and every planted fault found by the audit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from dq_toolchain import backends
from dq_toolchain.backends.common.onnx.parts import graph_in, open_part, write_graph
from dq_toolchain.backends.tensorrt.deploy.build_engines import graphs_of, main
from dq_toolchain.backends.tensorrt.graph.parts import in_terms_of_networks, part_graph
from dq_toolchain.backends.tensorrt.parts import Parts
from dq_toolchain.backends.tensorrt.proof.lint import lint
from dq_toolchain.backends.tensorrt.proof.nvidia import check_build
from dq_toolchain.backends.tensorrt.proof.parts import audit_part
from dq_toolchain.backends.tensorrt.runtime.engines import Engines
from dq_toolchain.backends.tensorrt.runtime.parts import part_engine
from dq_toolchain.backends.tensorrt.settings import Settings
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.metrics import relative_error
from tests import tiny, tiny_artifacts
from tests.backends.onnx_parts import (
    KINDS,
    LAYERS,
    TABLE,
    WITH_TABLE,
    decoder_alone,
    executed,
    graph_of,
    in_float,
    one_bias,
    one_integer,
    one_range,
    one_scale,
    part_of,
)
from tests.backends.tensorrt import fake_tensorrt
from tests.backends.tensorrt.conftest import needs_nvidia
from tests.backends.tensorrt.test_scripts import TRTEXEC
from tests.tiny_parts import calls_of, latents

ROOM = {"fp32": 1e-5, "fp16": 0.004}
"""Relative error of weights alone, by what is between layers."""
INT8, MEAN = 0.06, 0.07
"""What 8-bit activations may cost a random autoencoder of this size: its decoder, and the mean that its encoder gives (0.060)."""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Folder of a part's program by kind and precision, written once."""

    @cache
    def program(kind: str, precision: str) -> Path:
        folder, part = tmp_path_factory.mktemp("programs") / "program", part_of(kind)
        write_graph(part_graph(part, in_terms_of_networks(part), precision), folder)
        return folder

    return program


Programs = Callable[[str, str], Path]


@pytest.mark.parametrize(
    ("kind", "precision"), [*((kind, "fp32") for kind in KINDS), ("t5", "fp16"), ("decoder", "fp16")]
)
def test_a_part_computes_what_its_integers_stand_for(kind: str, precision: str, programs: Programs) -> None:
    part, program = part_of(kind), programs(kind, precision)
    artifact = in_terms_of_networks(part)
    audit_part(graph_of(program), part, artifact)
    room = MEAN if kind.endswith("encoder of pictures") else INT8
    for call in calls_of(part):
        for found, want in executed(part, program, call):
            assert found.dtype == torch.float32
            assert found.shape == want.shape
            assert relative_error(found, want).max() < (room if artifact.sites else ROOM[precision])


def test_wide_convolutions_are_int8_and_only_they(programs: Programs) -> None:
    part = part_of("decoder")
    int8 = {each.name for each in lint(graph_of(programs("decoder", "fp32"))) if each.int8}
    shapes = {name: weights.weight_q.shape for name, weights in part.layers.items()}
    assert int8 == {name for name, shape in shapes.items() if len(shape) == 4 and min(shape[:2]) >= 16}
    assert int8 == {site.layer for site in in_terms_of_networks(part).sites}


FAULTS: list[tuple[Callable[[Any, str], None], str, str, str]] = [
    *((one_integer, kind, layer, "the integers of {layer} differ") for kind, layer in WITH_TABLE),
    *((one_scale, kind, layer, "scales of {layer} differ") for kind, layer in WITH_TABLE),
    *((in_float, kind, layer, "the weights of {layer} are in float") for kind, layer in LAYERS.items()),
    (one_bias, "decoder", LAYERS["decoder"], "the bias of {layer} differs"),
    (one_range, "decoder", LAYERS["decoder"], "quantize of {layer}:input has scale"),
]


@pytest.mark.parametrize(("plant", "kind", "layer", "text"), FAULTS)
def test_a_planted_fault_is_found_by_name(
    plant: Callable[[Any, str], None], kind: str, layer: str, text: str, programs: Programs
) -> None:
    part, graph = part_of(kind), graph_of(programs(kind, "fp32"))
    plant(graph, layer)
    with pytest.raises(BackendError, match=text.format(layer=layer)):
        audit_part(graph, part, in_terms_of_networks(part))


def test_a_table_in_float_is_found(programs: Programs) -> None:
    part, graph = part_of("clip"), graph_of(programs("clip", "fp32"))
    (node,) = (node for node in graph if node.name == TABLE)
    node.replace_input_with(0, graph.initializers[f"{TABLE}.weight_scale"])
    with pytest.raises(BackendError, match=f"the table of {TABLE} is in float"):
        audit_part(graph, part, in_terms_of_networks(part))


def test_what_fp16_does_not_hold_is_built_in_fp32(tmp_path: Path) -> None:
    part = part_of("decoder")
    ranges = {**part.ranges, "decoder.conv_in": torch.tensor([-1.0, 1.0, -5e4, 5e4])}
    (tmp_path / "parts").mkdir()
    lowering = Parts(decoder_alone(ranges=ranges), tmp_path, Settings(jetpack=7), lambda _: None)
    made = lowering.lower(lowering.found.part("decoder"), tmp_path / "parts")
    (row,) = lowering.rows
    assert (row["precision"], row["fp16"]) == ("fp32", False)
    assert made.precision.endswith("in fp32")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network and its decoder, exported."""
    folder = tmp_path_factory.mktemp("parts")
    artifact, unet = tiny_artifacts.tiny_artifact(unet=tiny.small_unet(width=16))
    artifact.save(folder / "calibration", tiny_artifacts.tiny_reference(artifact, unet))
    out = folder / "tensorrt"
    backends.load("tensorrt").lower(
        artifact, folder / "calibration", out, Settings(), lambda _: None, parts=decoder_alone()
    )
    return out


def test_a_bundle_says_what_became_of_its_parts(bundle: Path) -> None:
    (row,) = json.loads((bundle / "pipeline.json").read_text())["parts"]
    assert row["precision"].startswith("int8 weights per channel; int8 activations of 13 of 20 layers")
    assert row["psnr"] > 30
    listed = json.loads((bundle / "bundle.json").read_text())["files"]
    assert {"parts/decoder/decoder.onnx", "parts/decoder/weights.bin", "pipeline.json"} <= set(listed)
    (placed,) = json.loads((bundle / "placements.json").read_text())["parts"]
    assert placed["graph"] == "parts/decoder/decoder.onnx"
    assert len(placed["int8"]) == 13
    assert placed["float"]["decoder.conv_in"] == "an INT8 convolution needs 16 channels, this one has 4"


def test_engines_of_parts_are_built_and_checked_with_the_others(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt)
    monkeypatch.setattr(fake_tensorrt, "__version__", "10.3.0")
    fake_tensorrt.in_float.clear()
    assert main([str(bundle)]) == 0
    said = capsys.readouterr().out
    assert "decoder: 13 of 13 sites INT8, 0 in float" in said
    engine = part_engine(
        Engines(fake_tensorrt, bundle, ("decoder",), device="cpu"), "decoder", ("latents",), ("picture",)
    )
    (call, *_), graph = latents(), open_part(bundle / "parts" / "decoder", ("latents",), ("picture",))
    assert torch.equal(engine(call)["picture"], graph(call)["picture"])
    fake_tensorrt.in_float.add("decoder.mid_block.resnets.0.conv1")
    assert main([str(bundle), "--force"]) == 1
    fake_tensorrt.in_float.clear()
    assert "in float: decoder.mid_block.resnets.0.conv1" in capsys.readouterr().out
    assert [graph.path.stem for graph in graphs_of(bundle)] == ["steps_g0", "steps_g1", "decoder"]
    assert main([str(bundle), "--trtexec-flags", "100300", "--graph", "parts/decoder/decoder.onnx"]) == 0
    assert capsys.readouterr().out.split() == ["--int8", "--fp16"]


def test_trtexec_builds_them_too(bundle: Path, tmp_path: Path) -> None:
    folder, log, trtexec = tmp_path / "bundle", tmp_path / "log", tmp_path / "trtexec"
    shutil.copytree(bundle, folder, ignore=shutil.ignore_patterns("engines"))
    trtexec.write_text(TRTEXEC.format(log=log, number=100300))
    trtexec.chmod(0o755)
    environment = os.environ | {"TRTEXEC": str(trtexec)}
    done = subprocess.run(
        [str(folder / "build_engines.sh")], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    asked = [json.loads(line) for line in log.read_text().splitlines()]
    assert [each["onnx"] for each in asked] == ["steps_g0.onnx", "steps_g1.onnx", "decoder.onnx"]
    assert asked[2]["timingCacheFile"] == "../../engines/timing.cache"
    assert (folder / "engines" / "decoder.plan").is_file()
    assert "decoder: 13 of 13 sites INT8" in done.stdout


@needs_nvidia
@pytest.mark.nvidia
@pytest.mark.parametrize("precision", ROOM)
@pytest.mark.parametrize("kind", KINDS)
def test_nvidias_compiler_takes_a_part_and_makes_int8_of_what_is_promised(
    kind: str, precision: str, programs: Programs
) -> None:
    program = programs(kind, precision)
    found = check_build(graph_in(program), lint(graph_of(program)))
    assert found.int8 == found.promised == len(in_terms_of_networks(part_of(kind)).sites)
    assert found.layers > 0
