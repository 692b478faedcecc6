"""Text encoders and decoders for TensorRT: executed, compiled, built on a device, and every planted fault found by the audit."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dq_toolchain import backends
from dq_toolchain.backends.common.onnx.parts import write_graph
from dq_toolchain.backends.tensorrt.deploy.build_engines import graphs_of, main
from dq_toolchain.backends.tensorrt.graph.parts import in_terms_of_networks, part_graph
from dq_toolchain.backends.tensorrt.parts import Parts
from dq_toolchain.backends.tensorrt.proof.lint import lint
from dq_toolchain.backends.tensorrt.proof.nvidia import check_build
from dq_toolchain.backends.tensorrt.proof.parts import audit_part
from dq_toolchain.backends.tensorrt.settings import Settings
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.metrics import relative_error
from dq_toolchain.toolchain.parts.part import Part
from tests import tiny, tiny_artifacts
from tests.backends.onnx_parts import (
    FAULTY,
    PARTS,
    TABLE,
    decoder_alone,
    executed,
    in_float,
    one_bias,
    one_integer,
    one_range,
    one_scale,
)
from tests.backends.tensorrt import fake_tensorrt
from tests.backends.tensorrt.conftest import needs_nvidia
from tests.tiny_parts import calls_of, clip_part, decoder_part

ROOM = {"fp32": 1e-5, "fp16": 0.004}
"""Relative error of weights alone, by what is between layers."""
INT8 = 0.06
"""What 8-bit activations may cost a random decoder of this size."""


def written(part: Part, precision: str, folder: Path) -> Path:
    """A part's program, audited."""
    artifact = in_terms_of_networks(part)
    audit_part(write_graph(part_graph(part, artifact, precision), folder / part.name), part, artifact)
    return folder / part.name


@pytest.mark.parametrize("precision", ROOM)
@pytest.mark.parametrize("kind", PARTS)
def test_a_part_computes_what_its_integers_stand_for(kind: str, precision: str, tmp_path: Path) -> None:
    part = PARTS[kind]()
    program = written(part, precision, tmp_path)
    room = INT8 if in_terms_of_networks(part).sites else ROOM[precision]
    for call in calls_of(part):
        for found, want in executed(part, program, call):
            assert found.dtype == torch.float32
            assert found.shape == want.shape
            assert relative_error(found, want).max() < room


def test_wide_convolutions_are_int8_and_only_they(tmp_path: Path) -> None:
    part = decoder_part()
    artifact = in_terms_of_networks(part)
    graph = write_graph(part_graph(part, artifact, "fp32"), tmp_path / part.name)
    int8 = {each.name for each in lint(graph) if each.int8}
    shapes = {name: weights.weight_q.shape for name, weights in part.layers.items()}
    assert int8 == {name for name, shape in shapes.items() if len(shape) == 4 and min(shape[:2]) >= 16}
    assert int8 == {site.layer for site in artifact.sites}


@pytest.mark.parametrize(
    ("spoil", "text"), [(one_integer, "the integers of {layer} differ"), (one_scale, "scales of {layer} differ")]
)
@pytest.mark.parametrize(("make", "layer"), FAULTY)
def test_other_weights_are_found_by_name(
    make: Callable[[], Part], layer: str, spoil: Callable[[Part, str], Part], text: str, tmp_path: Path
) -> None:
    part = make()
    artifact = in_terms_of_networks(part)
    graph = write_graph(
        part_graph(spoil(part, layer), in_terms_of_networks(spoil(part, layer)), "fp32"), tmp_path / "x"
    )
    with pytest.raises(BackendError, match=text.format(layer=layer)):
        audit_part(graph, part, artifact)


@pytest.mark.parametrize(
    ("spoil", "text"),
    [(one_bias, "the bias of {layer} differs"), (one_range, "quantize of {layer}:input has scale")],
)
def test_another_bias_or_scale_of_activations_is_found_by_name(
    spoil: Callable[[Part, str], Part], text: str, tmp_path: Path
) -> None:
    part, layer = decoder_part(), "decoder.up_blocks.0.resnets.0.conv1"
    other = spoil(part, layer)
    graph = write_graph(part_graph(other, in_terms_of_networks(other), "fp32"), tmp_path / "x")
    with pytest.raises(BackendError, match=text.format(layer=layer)):
        audit_part(graph, part, in_terms_of_networks(part))


@pytest.mark.parametrize(("make", "layer"), [each for each in FAULTY if each[1] != TABLE])
def test_a_layer_in_float_is_found_by_name(make: Callable[[], Part], layer: str, tmp_path: Path) -> None:
    part = make()
    artifact = in_terms_of_networks(part)
    model = part_graph(part, artifact, "fp32")
    in_float(model, part, layer)
    with pytest.raises(BackendError, match=f"the weights of {layer} are in float"):
        audit_part(write_graph(model, tmp_path / "x"), part, artifact)


def test_what_fp16_does_not_hold_is_built_in_fp32(tmp_path: Path) -> None:
    part = decoder_part()
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
    assert (bundle / "engines" / "decoder.plan").is_file()
    fake_tensorrt.in_float.add("decoder.mid_block.resnets.0.conv1")
    assert main([str(bundle), "--force"]) == 1
    fake_tensorrt.in_float.clear()
    assert "in float: decoder.mid_block.resnets.0.conv1" in capsys.readouterr().out
    assert [graph.path.stem for graph in graphs_of(bundle)] == ["steps_g0", "steps_g1", "decoder"]
    assert main([str(bundle), "--trtexec-flags", "100300", "--graph", "parts/decoder/decoder.onnx"]) == 0
    assert capsys.readouterr().out.split() == ["--int8", "--fp16"]


@needs_nvidia
@pytest.mark.nvidia
@pytest.mark.parametrize("precision", ROOM)
@pytest.mark.parametrize("kind", PARTS)
def test_nvidias_compiler_takes_a_part_and_makes_int8_of_what_is_promised(
    kind: str, precision: str, tmp_path: Path
) -> None:
    part = PARTS[kind]()
    artifact = in_terms_of_networks(part)
    graph = write_graph(part_graph(part, artifact, precision), tmp_path / "x")
    found = check_build(tmp_path / "x" / "x.onnx", lint(graph))
    assert found.int8 == found.promised == len(artifact.sites)
    assert found.layers > 0


def test_a_table_in_float_is_found(tmp_path: Path) -> None:
    part = clip_part()
    artifact = in_terms_of_networks(part)
    model = part_graph(part, artifact, "fp32")
    (node,) = (node for node in model.graph if node.name == TABLE)
    node.replace_input_with(0, model.graph.initializers[f"{TABLE}.weight_scale"])
    with pytest.raises(BackendError, match=f"the table of {TABLE} is in float"):
        audit_part(model.graph, part, artifact)
