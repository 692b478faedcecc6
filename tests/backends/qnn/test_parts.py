"""Text encoders and decoders for the NPU: executed, compiled and emulated, and every planted fault found by the audit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dq_toolchain import backends
from dq_toolchain.backends.common.onnx.parts import as_artifact, graph_in, write_graph
from dq_toolchain.backends.qnn.chips import EMULATED
from dq_toolchain.backends.qnn.graph.parts import float_graph, in_integers, integer_graph
from dq_toolchain.backends.qnn.parts import FLOAT, INTEGERS, Parts
from dq_toolchain.backends.qnn.proof.lint import lint
from dq_toolchain.backends.qnn.proof.parts import audit_float, audit_integers
from dq_toolchain.backends.qnn.settings import Settings
from dq_toolchain.backends.qnn.vendor import INSTALL_COMPILER, has_compiler
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import LayerWeights
from dq_toolchain.toolchain.metrics import relative_error
from dq_toolchain.toolchain.parts.artifact import PartsArtifact
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
from tests.tiny_npu import for_npu
from tests.tiny_parts import calls_of, decoder_part

LAYER = "decoder.up_blocks.0.resnets.0.conv1"
EMULATION = 0.005
"""Relative error of a part on the emulator, whose fp16 has 11 bits; 0.0004 to 0.0014 was measured."""
needs_compiler = pytest.mark.skipif(not has_compiler(), reason=f"needs Qualcomm's compiler: {INSTALL_COMPILER}")


@pytest.mark.parametrize("kind", PARTS)
def test_a_part_computes_what_its_integers_stand_for(kind: str, tmp_path: Path) -> None:
    part = PARTS[kind]()
    artifact, alone = in_integers(part), as_artifact(part, ())
    graph = write_graph(integer_graph(part, artifact), tmp_path / "integers")
    audit_integers(graph, part, artifact)
    placements = lint(graph)
    assert {each.name for each in placements} == set(artifact.layers)  # no other node breaks a rule
    assert all(each.integer for each in placements), placements
    plain = write_graph(float_graph(part, alone), tmp_path / "float")
    audit_float(plain, part, alone)
    assert not lint(plain)
    for call in calls_of(part):
        for name, room in (("integers", 5e-4), ("float", 1e-5)):
            for found, want in executed(part, tmp_path / name, call):
                assert relative_error(found, want).max() < room, name


@pytest.mark.parametrize(
    ("spoil", "text"), [(one_integer, "the integers of {layer} differ"), (one_scale, "scales of {layer} differ")]
)
@pytest.mark.parametrize(("make", "layer"), FAULTY)
def test_other_weights_are_found_by_name(
    make: Callable[[], Part], layer: str, spoil: Callable[[Part, str], Part], text: str, tmp_path: Path
) -> None:
    part = make()
    other = spoil(part, layer)
    graph = write_graph(integer_graph(other, in_integers(other)), tmp_path / "x")
    with pytest.raises(BackendError, match=text.format(layer=layer)):
        audit_integers(graph, part, in_integers(part))
    if layer != TABLE:
        alone = as_artifact(part, ())
        plain = write_graph(float_graph(other, as_artifact(other, ())), tmp_path / "y")
        with pytest.raises(BackendError, match=f"the weights of {layer} differ"):
            audit_float(plain, part, alone)


@pytest.mark.parametrize(
    ("spoil", "text"), [(one_bias, "the bias of {layer} differs"), (one_range, "quantize of {layer}:input has scale")]
)
def test_another_bias_or_scale_of_activations_is_found_by_name(
    spoil: Callable[[Part, str], Part], text: str, tmp_path: Path
) -> None:
    part = decoder_part()
    other = spoil(part, LAYER)
    graph = write_graph(integer_graph(other, in_integers(other)), tmp_path / "x")
    with pytest.raises(BackendError, match=text.format(layer=LAYER)):
        audit_integers(graph, part, in_integers(part))


@pytest.mark.parametrize(("make", "layer"), [each for each in FAULTY if each[1] != TABLE])
def test_a_layer_in_float_is_found_by_name(make: Callable[[], Part], layer: str, tmp_path: Path) -> None:
    part = make()
    artifact = in_integers(part)
    model = integer_graph(part, artifact)
    in_float(model, part, layer)
    with pytest.raises(BackendError, match=f"the weights of {layer} are no integers"):
        audit_integers(write_graph(model, tmp_path / "x"), part, artifact)


def _lowered(found: PartsArtifact, folder: Path) -> tuple[str, list[str], list[str]]:
    """Precision of the decoder, its integer layers, and what was said."""
    said: list[str] = []
    (folder / "parts").mkdir()
    lowering = Parts(found, folder, folder, Settings(), said.append)
    made = lowering.lower(found.part("decoder"), folder / "parts")
    return made.precision, lowering.rows[0]["integer"], said


def test_what_the_lint_refuses_is_lowered_in_fp16_and_said(tmp_path: Path) -> None:
    part = decoder_part()
    weights = part.layers[LAYER]
    small = LayerWeights(weights.weight_q, weights.weight_scale * 2.0**-30)  # its bias takes more steps than int32 has
    precision, integers, said = _lowered(decoder_alone(layers={**part.layers, LAYER: small}), tmp_path)
    assert (precision, integers) == (FLOAT, [])
    assert said
    assert said[0].startswith(f"decoder is lowered in fp16: {LAYER}: its bias is")


def test_what_fp16_does_not_hold_is_refused(tmp_path: Path) -> None:
    part = decoder_part()
    ranges = {**part.ranges, LAYER: torch.tensor([-1.0, 1.0, -5e4, 5e4])}
    with pytest.raises(BackendError, match=f"{LAYER} reaches 5e.04, fp16 holds at most .* --unet-only"):
        _lowered(decoder_alone(ranges=ranges), tmp_path)


def test_a_bundle_says_what_became_of_its_parts(tmp_path: Path) -> None:
    artifact, unet = for_npu(*tiny_artifacts.tiny_artifact(unet=tiny.small_unet()))
    artifact.save(tmp_path / "calibration", tiny_artifacts.tiny_reference(artifact, unet))
    out = tmp_path / "qnn"
    backends.load("qnn").lower(artifact, tmp_path / "calibration", out, Settings(), lambda _: None, parts=decoder_alone())
    (row,) = json.loads((out / "pipeline.json").read_text())["parts"]
    assert row["precision"] == INTEGERS
    assert row["psnr"] > 60
    assert sum(each["count"] for each in row["operations"] if each["arithmetic"] == "uint16 x int8") == 20
    listed = json.loads((out / "bundle.json").read_text())["files"]
    assert {"parts/decoder/decoder.onnx", "parts/decoder/weights.bin", "pipeline.json"} <= set(listed)
    (placed,) = json.loads((out / "placements.json").read_text())["parts"]
    assert (placed["graph"], len(placed["integer"])) == ("parts/decoder/decoder.onnx", 20)


@needs_compiler
@pytest.mark.qnn
@pytest.mark.parametrize("form", ["integers", "float"])
@pytest.mark.parametrize("kind", PARTS)
def test_qualcomms_compiler_takes_a_part_and_the_emulator_computes_it(kind: str, form: str, tmp_path: Path) -> None:
    from dq_toolchain.backends.qnn.htp.check import check_build
    from dq_toolchain.backends.qnn.htp.session import open_session

    part = PARTS[kind]()
    artifact = in_integers(part) if form == "integers" else as_artifact(part, ())
    write_graph((integer_graph if form == "integers" else float_graph)(part, artifact), tmp_path / part.name)
    graph = graph_in(tmp_path / part.name)
    assert check_build([graph], artifact, EMULATED, lambda _: None).products == len(artifact.sites) // 2
    session = open_session(graph, EMULATED)
    call = calls_of(part)[0]
    made = session.run(None, {name: value.numpy() for name, value in call.items()})
    session.close()
    for found, (_, want) in zip(made, executed(part, tmp_path / part.name, call), strict=True):
        assert relative_error(torch.from_numpy(found), want).max() < EMULATION


@needs_compiler
@pytest.mark.qnn
def test_large_states_of_t5_are_right_in_fp16(tmp_path: Path) -> None:
    """Their squares are beyond fp16."""
    from dq_toolchain.backends.qnn.htp.session import open_session

    part = PARTS["t5"]()
    table = part.layers["shared"]
    part = replace(part, layers={**part.layers, "shared": LayerWeights(table.weight_q, table.weight_scale * 2.0**11)})
    write_graph(integer_graph(part, in_integers(part)), tmp_path / part.name)
    call = calls_of(part)[0]
    session = open_session(graph_in(tmp_path / part.name), EMULATED)
    (found,) = session.run(None, {name: value.numpy() for name, value in call.items()})
    session.close()
    ((_, want),) = executed(part, tmp_path / part.name, call)
    assert relative_error(torch.from_numpy(found), want).max() < EMULATION
