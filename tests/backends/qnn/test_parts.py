"""Text encoders and decoders for the NPU: executed, compiled and emulated, and every planted fault found by the audit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from dq_toolchain import backends
from dq_toolchain.backends.common.onnx.parts import as_artifact, graph_in, open_part, write_graph
from dq_toolchain.backends.qnn.chips import EMULATED
from dq_toolchain.backends.qnn.graph.parts import float_graph, in_integers, integer_graph
from dq_toolchain.backends.qnn.parts import FLOAT, INTEGERS, Parts
from dq_toolchain.backends.qnn.proof.lint import lint
from dq_toolchain.backends.qnn.proof.parts import audit_float, audit_integers
from dq_toolchain.backends.qnn.settings import Settings
from dq_toolchain.backends.qnn.vendor import INSTALL_COMPILER, has_compiler
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact, LayerWeights
from dq_toolchain.toolchain.metrics import relative_error
from dq_toolchain.toolchain.parts.artifact import PartsArtifact
from dq_toolchain.toolchain.parts.part import Part
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
    one_float,
    one_integer,
    one_range,
    one_scale,
    part_of,
)
from tests.tiny_npu import for_npu
from tests.tiny_parts import calls_of

LAYER = LAYERS["decoder"]
EMULATION = 0.005
"""Relative error of a part on the emulator, whose fp16 has 11 bits; 0.0004 to 0.0014 was measured."""
needs_compiler = pytest.mark.skipif(not has_compiler(), reason=f"needs Qualcomm's compiler: {INSTALL_COMPILER}")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Folder of a part's program by kind and form, written once."""

    @cache
    def program(kind: str, form: str) -> Path:
        folder, part = tmp_path_factory.mktemp("programs") / "program", part_of(kind)
        write_graph(GRAPHS[form](part, TERMS[form](part)), folder)
        return folder

    return program


Programs = Callable[[str, str], Path]
GRAPHS = {"integers": integer_graph, "float": float_graph}
TERMS: dict[str, Callable[[Part], Artifact]] = {"integers": in_integers, "float": lambda part: as_artifact(part, ())}
AUDITS = {"integers": audit_integers, "float": audit_float}
ROOM = {"integers": 5e-4, "float": 1e-5}
QUICK = (("t5", "integers"), ("decoder", "integers"))
"""Compiled in every run of the tests."""
FORMS = [*((kind, "integers") for kind in KINDS), ("clip", "float"), ("decoder", "float")]


@pytest.mark.parametrize(("kind", "form"), FORMS)
def test_a_part_computes_what_its_integers_stand_for(kind: str, form: str, programs: Programs) -> None:
    part, graph = part_of(kind), graph_of(programs(kind, form))
    artifact = TERMS[form](part)
    AUDITS[form](graph, part, artifact)
    placements = lint(graph)
    # no other node breaks a rule
    assert {each.name for each in placements} == (set(artifact.layers) if form == "integers" else set())
    assert all(each.integer for each in placements), placements
    for call in calls_of(part):
        for found, want in executed(part, programs(kind, form), call):
            assert relative_error(found, want).max() < ROOM[form]


FAULTS: list[tuple[Callable[[Any, str], None], str, str, str, str]] = [
    *((one_integer, kind, "integers", layer, "the integers of {layer} differ") for kind, layer in WITH_TABLE),
    *((one_scale, kind, "integers", layer, "scales of {layer} differ") for kind, layer in WITH_TABLE),
    *((in_float, kind, "integers", layer, "the weights of {layer} are no integers") for kind, layer in LAYERS.items()),
    (one_bias, "decoder", "integers", LAYER, "the bias of {layer} differs"),
    (one_range, "decoder", "integers", LAYER, "quantize of {layer}:input has scale"),
    (one_float, "decoder", "float", LAYER, "the weights of {layer} differ"),
    (one_integer, "clip", "float", TABLE, "the integers of {layer} differ"),
]


@pytest.mark.parametrize(("plant", "kind", "form", "layer", "text"), FAULTS)
def test_a_planted_fault_is_found_by_name(
    plant: Callable[[Any, str], None], kind: str, form: str, layer: str, text: str, programs: Programs
) -> None:
    part, graph = part_of(kind), graph_of(programs(kind, form))
    plant(graph, layer)
    with pytest.raises(BackendError, match=text.format(layer=layer)):
        AUDITS[form](graph, part, TERMS[form](part))


def _lowered(found: PartsArtifact, folder: Path) -> tuple[str, list[str], list[str]]:
    """Precision of the decoder, its integer layers, and what was said."""
    said: list[str] = []
    (folder / "parts").mkdir()
    lowering = Parts(found, folder, folder, Settings(), said.append)
    made = lowering.lower(found.part("decoder"), folder / "parts")
    return made.precision, lowering.rows[0]["integer"], said


def test_what_the_lint_refuses_is_lowered_in_fp16_and_said(tmp_path: Path) -> None:
    part = part_of("decoder")
    weights = part.layers[LAYER]
    small = LayerWeights(weights.weight_q, weights.weight_scale * 2.0**-30)  # its bias takes more steps than int32 has
    precision, integers, said = _lowered(decoder_alone(layers={**part.layers, LAYER: small}), tmp_path)
    assert (precision, integers) == (FLOAT, [])
    assert said
    assert said[0].startswith(f"decoder is lowered in fp16: {LAYER}: its bias is")


def test_what_fp16_does_not_hold_is_refused(tmp_path: Path) -> None:
    part = part_of("decoder")
    ranges = {**part.ranges, LAYER: torch.tensor([-1.0, 1.0, -5e4, 5e4])}
    with pytest.raises(BackendError, match=f"{LAYER} reaches 5e.04, fp16 holds at most .* --unet-only"):
        _lowered(decoder_alone(ranges=ranges), tmp_path)


def test_a_bundle_says_what_became_of_its_parts(tmp_path: Path) -> None:
    artifact, unet = for_npu(*tiny_artifacts.tiny_artifact(unet=tiny.small_unet()))
    artifact.save(tmp_path / "calibration", tiny_artifacts.tiny_reference(artifact, unet))
    out = tmp_path / "qnn"
    backends.load("qnn").lower(
        artifact, tmp_path / "calibration", out, Settings(), lambda _: None, parts=decoder_alone()
    )
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
@pytest.mark.parametrize(
    ("kind", "form"),
    [pytest.param(*each, marks=() if each in QUICK else pytest.mark.slow) for each in FORMS],
)
def test_qualcomms_compiler_takes_a_part_and_the_emulator_computes_it(kind: str, form: str, programs: Programs) -> None:
    from dq_toolchain.backends.qnn.htp.check import check_build

    part, program = part_of(kind), programs(kind, form)
    artifact = TERMS[form](part)
    assert check_build([graph_in(program)], artifact, EMULATED, lambda _: None).products == len(artifact.sites) // 2
    _emulated(part, program)


@needs_compiler
@pytest.mark.qnn
def test_large_states_of_t5_are_right_in_fp16(tmp_path: Path) -> None:
    """Their squares are beyond fp16."""
    part = part_of("t5")
    table = part.layers["shared"]
    part = replace(part, layers={**part.layers, "shared": LayerWeights(table.weight_q, table.weight_scale * 2.0**11)})
    write_graph(integer_graph(part, in_integers(part)), tmp_path / "t5")
    _emulated(part, tmp_path / "t5")


def _emulated(part: Part, program: Path) -> None:
    """The emulator gives what ONNX Runtime gives of the same program."""
    from dq_toolchain.backends.qnn.htp.session import open_session

    call, graph = calls_of(part)[0], graph_in(program)
    session = open_session(graph, EMULATED)
    made = session.run(None, {name: value.numpy() for name, value in call.items()})
    session.close()
    inputs, outputs = ([port.name for port in ports] for ports in (part.inputs, part.outputs))
    wanted = open_part(program, inputs, outputs)(call)
    for found, port in zip(made, part.outputs, strict=True):
        assert relative_error(torch.from_numpy(found), wanted[port.name]).max() < EMULATION
