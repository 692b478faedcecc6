"""A concatenation of fp16 and float32 becomes valid ONNX, and what torch makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from dq_toolchain.backends.common.onnx.building import check_model
from dq_toolchain.backends.common.onnx.session import open_session
from dq_toolchain.backends.common.onnx.types import widen_concatenations
from dq_toolchain.toolchain.errors import BackendError

ROW = ir.Shape([2, 4])


def _value(name: str, dtype: ir.DataType) -> ir.Value:
    return ir.Value(name=name, shape=ROW, type=ir.TensorType(dtype))


def mixed() -> Any:
    """As SDXL's: text in fp16 beside sinusoids in float32."""
    text, sinusoids = _value("text", ir.DataType.FLOAT16), _value("sinusoids", ir.DataType.FLOAT)
    joined = ir.node("Concat", [text, sinusoids], attributes={"axis": 1})
    out = joined.outputs[0]
    out.name, out.shape, out.dtype = "joined", ir.Shape([2, 8]), ir.DataType.FLOAT
    graph = ir.Graph([text, sinusoids], [out], nodes=[joined], opset_imports={"": 19}, name="mixed")
    return ir.Model(graph, ir_version=10)


def test_both_sides_are_float32(tmp_path: Path) -> None:
    ir.save(mixed(), tmp_path / "before.onnx")
    with pytest.raises(BackendError, match="not valid ONNX"):
        check_model(tmp_path / "before.onnx")
    ir.save(widen_concatenations(mixed()), tmp_path / "after.onnx")
    check_model(tmp_path / "after.onnx")
    text, sinusoids = np.full((2, 4), 0.1, np.float16), np.full((2, 4), 0.1, np.float32)
    (found,) = open_session(tmp_path / "after.onnx").run(None, {"text": text, "sinusoids": sinusoids})
    np.testing.assert_array_equal(found, np.concatenate([text.astype(np.float32), sinusoids], axis=1))


def test_one_type_is_left_alone() -> None:
    model = mixed()
    model.graph.inputs[0].dtype = ir.DataType.FLOAT
    widen_concatenations(model)
    assert [node.op_type for node in model.graph] == ["Concat"]
