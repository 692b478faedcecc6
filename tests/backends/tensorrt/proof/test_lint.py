"""The lint names the rule that a graph breaks, and promises INT8 for nothing else than what the compiler makes INT8."""

from __future__ import annotations

import json
import re
from pathlib import Path

import onnx_ir as ir
import pytest
from onnx import helper

from dq_toolchain.backends.tensorrt.deploy.int8_layers import judge
from dq_toolchain.backends.tensorrt.proof import nvidia
from dq_toolchain.backends.tensorrt.proof.lint import Placement, lint, why_float
from dq_toolchain.toolchain.errors import BackendError
from tests.backends.tensorrt.conftest import Lowered, load_graph, needs_nvidia
from tests.backends.tensorrt.graphs import COSTLY, GRAPHS, NODE, REFUSED, write

ALL = GRAPHS | REFUSED | COSTLY


@pytest.mark.parametrize("name", ALL)
def test_every_rule(name: str, tmp_path: Path) -> None:
    found = lint(ir.load(write(ALL[name], tmp_path / "graph.onnx")).graph)
    assert [placement.name for placement in found] == [NODE]
    expected = ALL[name][3]
    assert found[0].int8 == (expected == "")
    assert re.search(expected, found[0].why_float), found[0].why_float


def test_a_product_of_two_concatenations_in_float_is_meant_to_be_float(tmp_path: Path) -> None:
    """Joint attention joins picture and text in front of its products."""
    joined = [
        helper.make_node("Concat", ["x", "x2"], ["q"], axis=2),
        helper.make_node("Concat", ["x3", "x4"], ["k"], axis=3),
    ]
    nodes = [*joined, helper.make_node("MatMul", ["q", "k"], ["y"], name=NODE)]
    inputs = [("x", [1, 4, 32, 16]), ("x2", [1, 4, 32, 16]), ("x3", [1, 4, 16, 32]), ("x4", [1, 4, 16, 32])]
    assert lint(ir.load(write((nodes, inputs, {}, ""), tmp_path / "graph.onnx")).graph) == ()


def test_what_is_lowered_keeps_the_rules(form: Lowered) -> None:
    for path in form.graphs:
        placements = lint(load_graph(path).graph)
        assert {placement.name for placement in placements if not placement.int8} == form.narrow
        assert {placement.name for placement in placements} >= set(form.artifact.layers)


def test_shapes_without_an_int8_kernel() -> None:
    assert why_float("Conv", (32, 4, 3, 3)) == "an INT8 convolution needs 16 channels, this one has 4"
    assert "this one has 3" in why_float("Conv", (3, 32, 3, 3))
    assert "2 channel groups" in why_float("Conv", (32, 16, 3, 3), 2)
    assert "transposed" in why_float("ConvTranspose", (32, 32, 3, 3))
    assert why_float("Conv", (16, 16, 3, 3)) == why_float("Gemm", (8, 8)) == ""


@needs_nvidia
@pytest.mark.nvidia
@pytest.mark.parametrize("name", GRAPHS)
def test_compiler_agrees(name: str, tmp_path: Path) -> None:
    """Each planted mistake is not only named by the lint: NVIDIA's compiler really falls back to float, silently."""
    result = nvidia.compile_graph(write(GRAPHS[name], tmp_path / "graph.onnx"))
    assert result["layers"], result["errors"]
    found = judge(result["layers"], [NODE])
    assert found.int8 == ([NODE] if GRAPHS[name][3] == "" else [])


@needs_nvidia
@pytest.mark.nvidia
@pytest.mark.parametrize("name", REFUSED)
def test_compiler_refuses(name: str, tmp_path: Path) -> None:
    """By an error, or by dying: `--check-build` is one line in both cases."""
    path = write(REFUSED[name], tmp_path / "graph.onnx")
    with pytest.raises(BackendError, match=r"refuses graph|died on graph"):
        nvidia.check_build(path, (Placement(NODE, "Conv", ""),))


@needs_nvidia
@pytest.mark.nvidia
def test_promises_hold_in_every_form(form: Lowered) -> None:
    for path in form.graphs:
        placements = lint(load_graph(path).graph)
        compiled = nvidia.check_build(path, placements)
        assert compiled.int8 == compiled.promised == sum(placement.int8 for placement in placements)
        assert json.loads(json.dumps(compiled.to_json()))["compute_capability"] == "SM86"
