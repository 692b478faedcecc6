"""Permutations of six axes become what the NPU has, and give the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from dq_toolchain.backends.common.onnx.building import GraphBuilder
from dq_toolchain.backends.common.onnx.session import open_session
from dq_toolchain.backends.qnn.graph.permutations import MOST_AXES, turn_permutations, without_axes_of_one

FLOAT = ir.TensorType(ir.DataType.FLOAT)


def model(equation: str | None, permutation: list[int], sizes: list[int], reshaped: bool) -> Any:
    """Flat (1, n) -> Reshape -> permutation -> Reshape, or nothing, -> output."""
    total = int(np.prod(sizes))
    x = ir.Value(name="x", shape=ir.Shape([1, total]), type=FLOAT)
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": 19})
    anchor = ir.Node("", "Identity", [x])
    graph.append(anchor)
    builder = GraphBuilder(ir.Model(graph, ir_version=10))
    flat = builder.node(anchor, "Reshape", [x, builder.constant("to", torch.tensor(sizes))], "patches", sizes)
    given = [sizes[axis] for axis in permutation]
    if equation is None:
        out = builder.node(anchor, "Transpose", [flat], "turned", given)
        out.producer().attributes["perm"] = ir.Attr("perm", ir.AttributeType.INTS, permutation)
    else:
        out = builder.node(anchor, "Einsum", [flat], "turned", given)
        out.producer().attributes["equation"] = ir.Attr("equation", ir.AttributeType.STRING, equation)
    if reshaped:
        out = builder.node(anchor, "Reshape", [out, builder.constant("last", torch.tensor([total]))], "line", [total])
    graph.outputs.append(out)
    return builder


def run(builder: Any, path: Path) -> Any:
    ir.save(builder.finish(), path)
    total = builder.graph.inputs[0].shape.numpy()
    session = open_session(path)
    return session.run(None, {"x": np.arange(total[1], dtype=np.float32)[None]})[0]


@pytest.mark.parametrize("reshaped", [True, False])
@pytest.mark.parametrize("equation", ["nhwpqc->nchpwq", None])
def test_a_patch_comes_back_with_five_axes(equation: str | None, reshaped: bool, tmp_path: Path) -> None:
    given = (equation, [0, 5, 1, 3, 2, 4], [1, 3, 2, 4, 5, 6], reshaped)
    want = run(model(*given), tmp_path / "before.onnx")
    builder = model(*given)
    turn_permutations(builder)
    got = run(builder, tmp_path / "after.onnx")
    np.testing.assert_array_equal(got, want)
    kinds = {node.op_type for node in builder.graph}
    assert "Einsum" not in kinds
    inside = [
        len(value.shape) for node in builder.graph for value in node.outputs if value is not builder.graph.outputs[0]
    ]
    assert max(inside) <= MOST_AXES


def test_six_axes_that_are_all_longer_than_one_stay() -> None:
    builder = model("abcdef->fedcba", [5, 4, 3, 2, 1, 0], [2, 2, 2, 2, 2, 3], True)
    turn_permutations(builder)
    assert [node.op_type for node in builder.graph if node.op_type == "Einsum"] == ["Einsum"]


def test_axes_of_one_are_left_out() -> None:
    assert without_axes_of_one([1, 3, 1, 4], [3, 0, 1, 2]) == ([3, 4], [1, 0])
