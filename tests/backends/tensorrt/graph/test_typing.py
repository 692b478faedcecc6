"""Every tensor of a graph says its type, so that a strongly typed network needs no flag: TensorRT 11 knows no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto

from dq_toolchain.backends.common.onnx.building import check_model
from dq_toolchain.toolchain.errors import BackendError
from tests.backends.tensorrt.conftest import Lowered

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
PRODUCTS = ("Conv", "Gemm", "MatMul")


def types_of(path: Path) -> tuple[Any, dict[str, int]]:
    """The graph, and the element type of every value in it, by name."""
    model = onnx.shape_inference.infer_shapes(onnx.load(str(path)), check_type=True, strict_mode=True)
    graph = model.graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output, *graph.value_info)}
    return graph, types | {constant.name: constant.data_type for constant in graph.initializer}


def test_every_tensor_has_a_type_and_operands_agree(form: Lowered) -> None:
    """Of an operation's floats all are of one type, but for casts: what strongly typed networks ask for."""
    for path in form.graphs:
        graph, types = types_of(path)
        for node in graph.node:
            inputs = node.input[:1] if node.op_type == "Resize" else node.input  # its scales are float32 by ONNX
            values = [name for name in (*inputs, *node.output) if name]
            assert all(types[name] for name in values), node.name
            assert node.op_type == "Cast" or len({types[name] for name in values} & set(FLOATS)) <= 1, node.name


def test_products_are_of_the_precision_that_was_asked_for(form: Lowered) -> None:
    expected = TensorProto.FLOAT16 if form.bundle.form.endswith("fp16") else TensorProto.FLOAT
    for path in form.graphs:
        graph, types = types_of(path)
        for node in graph.node:
            if node.op_type in (*PRODUCTS, "QuantizeLinear", "DequantizeLinear"):
                assert {types[name] for name in (*node.input, *node.output)} & set(FLOATS) == {expected}, node.name


def test_what_is_fp32_in_an_fp16_graph_comes_from_the_timestep_or_leaves(form: Lowered) -> None:
    """Inputs and output are float32; between them only the sinusoids are, whose angles fp16 does not hold, and a row of step
    vectors until its vectors are taken out of it, with the timestep where it is in the row.
    """
    if not form.bundle.form.endswith("fp16"):
        pytest.skip("fp32 throughout")
    for path in form.graphs:
        graph, types = types_of(path)
        constants = {constant.name for constant in graph.initializer}
        allowed, last = {"timestep", "step_vectors"}, {port.name for port in graph.output}
        for node in graph.node:
            if (
                set(node.output) <= last
            ):  # float32 by what a network asks of its output, such as to divide it by the timestep
                continue
            if any(types[name] == TensorProto.FLOAT for name in node.output) and node.op_type != "Cast":
                assert set(node.input) <= allowed | constants, node.name
                allowed |= set(node.output)


def test_a_graph_of_mixed_types_is_refused(static: Lowered, tmp_path: Path) -> None:
    """One scale in fp16 among fp32: ONNX Runtime's and NVIDIA's weakly typed builder would take it or crash."""
    model = onnx.load(str(static.graphs[0]))
    scale = next(constant for constant in model.graph.initializer if constant.name.endswith(".scale"))
    scale.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(scale).astype("float16"), scale.name))
    onnx.save(model, str(tmp_path / "mixed.onnx"))
    with pytest.raises(BackendError, match="is not valid ONNX"):
        check_model(tmp_path / "mixed.onnx")
