"""Sigmoids in other forms: the same function in ONNX Runtime, and nearer to it on Qualcomm's emulator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, save

from dq_toolchain.backends.common.onnx.building import GraphBuilder
from dq_toolchain.backends.common.onnx.session import open_session as open_on_cpu
from dq_toolchain.backends.qnn.graph.sigmoids import rewrite_sigmoids
from dq_toolchain.backends.qnn.vendor import INSTALL_COMPILER, has_compiler

VECTOR, PICTURE, LARGE = (1, 512), (1, 8, 8, 8), (1, 32, 16, 16)
REACH = np.linspace(-40, 12, 512, dtype=np.float32).astype(np.float16).astype(np.float32)
"""Numbers that fp16 holds; exp(-x) is infinite there below -11."""


def silu_graph(path: Path, shape: tuple[int, ...], rewritten: bool, factor: str = "x") -> Path:
    """SiLU; with ``factor`` "s" the square of a sigmoid, which is none."""
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["s"], name="s"),
        helper.make_node("Mul", [factor, "s"], ["y"], name="y"),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name in ("x", "y"))
    graph = helper.make_graph(nodes, "g", [x], [y])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    model = ir.load(path)
    if rewritten:
        builder = GraphBuilder(model)
        rewrite_sigmoids(builder)
        builder.finish()
    ir.save(model, path)
    return path


def distance(got: NDArray[Any], x: NDArray[Any]) -> float:
    """Relative, from SiLU."""
    wanted = x / (1 + np.exp(-x.astype(np.float64)))
    return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))


def kinds(path: Path) -> list[str]:
    return [node.op_type for node in ir.load(path).graph]


def test_a_vectors_sigmoid_is_the_same_function_without_the_operation(tmp_path: Path) -> None:
    path = silu_graph(tmp_path / "vector.onnx", VECTOR, rewritten=True)
    x = REACH.reshape(VECTOR)
    (got,) = open_on_cpu(path).run(None, {"x": x})
    assert "Sigmoid" not in kinds(path)
    assert distance(got, x) < 1e-6


def test_a_pictures_silu_is_the_same_function_through_tanh(tmp_path: Path) -> None:
    path = silu_graph(tmp_path / "picture.onnx", PICTURE, rewritten=True)
    x = REACH.reshape(PICTURE)
    (got,) = open_on_cpu(path).run(None, {"x": x})
    assert kinds(path) == ["Mul", "Tanh", "Mul", "Add"]
    assert distance(got, x) < 1e-6


def test_a_pictures_sigmoid_of_something_else_stays(tmp_path: Path) -> None:
    path = silu_graph(tmp_path / "picture.onnx", PICTURE, rewritten=True, factor="s")
    assert kinds(path) == ["Sigmoid", "Mul"]


@pytest.mark.qnn
@pytest.mark.skipif(not has_compiler(), reason=f"needs Qualcomm's compiler: {INSTALL_COMPILER}")
def test_on_the_emulator_it_is_nearer_where_embeddings_lie(tmp_path: Path) -> None:
    from dq_toolchain.backends.qnn.htp.session import open_session

    x = np.random.default_rng(0).normal(-4, 2, VECTOR).astype(np.float16).astype(np.float32)
    found = []
    for rewritten in (False, True):
        path = silu_graph(tmp_path / f"{rewritten}.onnx", VECTOR, rewritten)
        (got,) = open_session(path, "SM8750", lambda _line: None).run(None, {"x": x})
        found.append(distance(got, x))
    plain, through_exp = found
    assert through_exp < 1e-3 < 3e-3 < plain


@pytest.mark.qnn
@pytest.mark.skipif(not has_compiler(), reason=f"needs Qualcomm's compiler: {INSTALL_COMPILER}")
@pytest.mark.parametrize("middle", [0.0, -1.0])
def test_on_the_emulator_a_picture_is_nearer_and_less_biased(middle: float, tmp_path: Path) -> None:
    from dq_toolchain.backends.qnn.htp.session import open_session

    x = np.random.default_rng(0).normal(middle, 1, LARGE).astype(np.float16).astype(np.float32)
    wanted = x / (1 + np.exp(-x.astype(np.float64)))
    found, biases = [], []
    for rewritten in (False, True):
        path = silu_graph(tmp_path / f"{rewritten}.onnx", LARGE, rewritten)
        (got,) = open_session(path, "SM8750", lambda _line: None).run(None, {"x": x})
        found.append(distance(got, x))
        biases.append(abs(float((got - wanted).mean())))
    assert found[1] < 0.7 * found[0]
    assert biases[1] < 0.5 * biases[0]
