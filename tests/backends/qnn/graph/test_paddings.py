"""Paddings as concatenations: the same numbers in ONNX Runtime, and right on Qualcomm's emulator, where a Pad is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, save

from dq_toolchain.backends.common.onnx.building import GraphBuilder
from dq_toolchain.backends.common.onnx.session import open_session as open_on_cpu
from dq_toolchain.backends.qnn.graph.paddings import rewrite_paddings
from dq_toolchain.backends.qnn.proof.lint import lint
from dq_toolchain.backends.qnn.vendor import INSTALL_COMPILER, has_compiler

Case = tuple[tuple[int, ...], list[int], float | None]
CASES: dict[str, Case] = {
    "behind the last column": ((1, 16, 8, 8), [0, 0, 0, 0, 0, 0, 0, 1], 0.0),
    "behind the last column and row": ((1, 64, 16, 16), [0, 0, 0, 0, 0, 0, 1, 1], None),
    "a row of ones": ((1, 2, 16, 64), [0, 0, 0, 0, 0, 0, 1, 0], 1.0),
    "on all sides": ((1, 16, 8, 8), [0, 0, 2, 1, 0, 0, 2, 1], -3.0),
    "channels in front": ((1, 4, 8, 8), [0, 3, 0, 0, 0, 0, 0, 0], 0.5),
}


def pad_graph(path: Path, case: Case, rewritten: bool, mode: str = "constant") -> Path:
    """x -> Mul -> Pad -> Mul -> y."""
    shape, pads, value = case
    padded = [size + pads[i] + pads[i + len(shape)] for i, size in enumerate(shape)]
    held: dict[str, NDArray[Any]] = {"two": np.full(1, 2, np.float32), "pads": np.array(pads, np.int64)}
    held |= {} if value is None else {"value": np.array(value, np.float32)}
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["a"], name="a"),
        helper.make_node("Pad", ["a", *list(held)[1:]], ["b"], name="b", mode=mode),
        helper.make_node("Mul", ["b", "two"], ["y"], name="y"),
    ]
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, list(sizes))
        for name, sizes in (("x", shape), ("y", padded))
    )
    constants = [numpy_helper.from_array(array, name) for name, array in held.items()]
    values = [helper.make_tensor_value_info("a", TensorProto.FLOAT, list(shape))]
    graph = helper.make_graph(nodes, "g", [x], [y], constants, value_info=values)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    model = ir.load(path)
    if rewritten:
        builder = GraphBuilder(model)
        rewrite_paddings(builder)
        builder.finish()
    ir.save(model, path)
    return path


def numbers(shape: tuple[int, ...]) -> NDArray[Any]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("name", CASES)
def test_the_same_numbers_without_the_operation(name: str, tmp_path: Path) -> None:
    path = pad_graph(tmp_path / "rewritten.onnx", CASES[name], rewritten=True)
    assert {node.op_type for node in ir.load(path).graph} == {"Mul", "Concat"}
    x = {"x": numbers(CASES[name][0])}
    plain = open_on_cpu(pad_graph(tmp_path / "plain.onnx", CASES[name], rewritten=False))
    np.testing.assert_array_equal(open_on_cpu(path).run(None, x)[0], plain.run(None, x)[0])


@pytest.mark.parametrize(("mode", "last"), [("reflect", 1), ("constant", -1)])
def test_what_is_left_of_paddings_is_refused(mode: str, last: int, tmp_path: Path) -> None:
    case = ((1, 16, 8, 8), [0, 0, 0, 0, 0, 0, 1, last], None)
    path = pad_graph(tmp_path / "left.onnx", case, rewritten=True, mode=mode)
    (found,) = lint(ir.load(path).graph)
    assert (found.name, found.why) == (
        "b",
        "a padding is compiled to wrong numbers in some sizes; make it a concatenation",
    )


@pytest.mark.qnn
@pytest.mark.skipif(not has_compiler(), reason=INSTALL_COMPILER)
@pytest.mark.parametrize("name", CASES)
def test_concatenations_are_right_on_the_emulator(name: str, tmp_path: Path) -> None:
    x = numbers(CASES[name][0])
    wanted, got = _both(pad_graph(tmp_path / "g.onnx", CASES[name], rewritten=True), x)
    np.testing.assert_allclose(got, wanted, atol=1e-2)


@pytest.mark.qnn
@pytest.mark.skipif(not has_compiler(), reason=INSTALL_COMPILER)
@pytest.mark.parametrize("name", ["behind the last column", "behind the last column and row"])
def test_paddings_are_not(name: str, tmp_path: Path) -> None:
    """The reason for all this: where this fails, paddings can stay."""
    wanted, got = _both(pad_graph(tmp_path / "g.onnx", CASES[name], rewritten=False), numbers(CASES[name][0]))
    assert np.abs(got - wanted).max() > 1


def _both(path: Path, x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    from dq_toolchain.backends.qnn.htp.session import open_session

    return open_on_cpu(path).run(None, {"x": x})[0], open_session(path.read_bytes(), "SM8750").run(None, {"x": x})[0]
