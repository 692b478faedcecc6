"""RMS norms over rows: the same numbers in ONNX Runtime, and right on Qualcomm's emulator, where they are not as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, save, shape_inference

from dq_toolchain.backends.common.onnx.building import GraphBuilder
from dq_toolchain.backends.common.onnx.session import open_session as open_on_cpu
from dq_toolchain.backends.qnn.graph.norms import rewrite_norms
from dq_toolchain.backends.qnn.proof.lint import lint
from dq_toolchain.backends.qnn.vendor import INSTALL_COMPILER, has_compiler
from dq_toolchain.toolchain.errors import BackendError

Shape = tuple[int, ...]
Case = tuple[Shape, Shape]
"""Of x, and of the constant behind the norm."""
WRONG: dict[str, Case] = {
    "tokens first": ((1, 64, 2, 16), (16,)),
    "nine tokens": ((1, 9, 2, 32), (32,)),
    "heads first": ((1, 2, 64, 16), (1, 1, 1, 16)),
    "nine heads first": ((1, 9, 22, 16), (16,)),
    "a batch of tokens": ((2, 64, 16), (16,)),
    "a scalar behind it": ((1, 77, 256), (1,)),
    "rotary positions behind it": ((1, 256, 24, 128), (1, 256, 1, 128)),
}
"""What the compiler gets wrong."""
RIGHT: dict[str, Case] = {
    "33 channels": ((1, 64, 2, 33), (33,)),
    "whole tokens": ((1, 64, 16), (16,)),
    "FLUX": ((1, 256, 24, 128), (128,)),
    "Stable Diffusion 3.5": ((1, 24, 333, 64), (64,)),
}
WHY = "an RMS norm is compiled to wrong numbers as it is here; write it over rows, with a weight per channel behind it"
needs_compiler = pytest.mark.skipif(not has_compiler(), reason=INSTALL_COMPILER)


def norm_graph(path: Path, case: Case, rewritten: bool, weight_first: bool = False) -> Path:
    """x -> RMS norm over the last axis -> Mul -> y."""
    shape, of_constant = case
    held: dict[str, NDArray[Any]] = {"two": np.array(2, np.float32), "last": np.array([-1], np.int64)}
    held |= {"epsilon": np.array(1e-5, np.float32)}
    held |= {"weight": np.random.default_rng(1).uniform(0.5, 1.5, of_constant).astype(np.float32)}
    nodes = [
        helper.make_node(op_type, taken, [name], name=name)
        for op_type, taken, name in (
            ("Pow", ["x", "two"], "squares"),
            ("ReduceMean", ["squares", "last"], "mean"),
            ("Add", ["mean", "epsilon"], "above_zero"),
            ("Sqrt", ["above_zero"], "root"),
            ("Reciprocal", ["root"], "reciprocal"),
            ("Mul", ["x", "reciprocal"], "normed"),
            ("Mul", ["weight", "normed"] if weight_first else ["normed", "weight"], "y"),
        )
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name in "xy")
    constants = [numpy_helper.from_array(array, name) for name, array in held.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    save(shape_inference.infer_shapes(made), path)
    model = ir.load(path)
    if rewritten:
        builder = GraphBuilder(model)
        rewrite_norms(builder)
        builder.finish()
    ir.save(model, path)
    return path


def numbers(shape: Shape) -> NDArray[Any]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("weight_first", [False, True])
@pytest.mark.parametrize("name", WRONG)
def test_the_same_numbers_over_rows(name: str, weight_first: bool, tmp_path: Path) -> None:
    path = norm_graph(tmp_path / "rows.onnx", WRONG[name], rewritten=True, weight_first=weight_first)
    (rows,) = (node for node in ir.load(path).graph if node.op_type == "Pow")
    assert len(rows.outputs[0].shape or ()) == 2
    assert lint(ir.load(path).graph) == ()
    x = {"x": numbers(WRONG[name][0])}
    plain = open_on_cpu(norm_graph(tmp_path / "plain.onnx", WRONG[name], rewritten=False))
    np.testing.assert_array_equal(open_on_cpu(path).run(None, x)[0], plain.run(None, x)[0])


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_compiled_right_stays(name: str, tmp_path: Path) -> None:
    plain, written = (ir.load(norm_graph(tmp_path / "g.onnx", RIGHT[name], each)).graph for each in (False, True))
    assert [node.name for node in written] == [node.name for node in plain]
    assert lint(plain) == ()


@pytest.mark.parametrize("weight_first", [False, True])
@pytest.mark.parametrize("name", WRONG)
def test_a_file_with_one_is_refused(name: str, weight_first: bool, tmp_path: Path) -> None:
    path = norm_graph(tmp_path / "plain.onnx", WRONG[name], rewritten=False, weight_first=weight_first)
    (found,) = lint(ir.load(path).graph)
    assert (found.name, found.why) == ("normed", WHY)


@pytest.mark.qnn
@needs_compiler
@pytest.mark.parametrize("case", [*WRONG.values(), *RIGHT.values()], ids=[*WRONG, *RIGHT])
def test_on_the_emulator_they_are_right(case: Case, tmp_path: Path) -> None:
    assert _off(norm_graph(tmp_path / "g.onnx", case, rewritten=True), numbers(case[0])) < 1e-3


@pytest.mark.qnn
@needs_compiler
@pytest.mark.parametrize("tokens", [8, 32, 128])
def test_16_64_and_256_rows_are_right(tokens: int, tmp_path: Path) -> None:
    """Numbers of rows that the compiler gets wrong elsewhere."""
    case = ((1, tokens, 2, 16), (16,))
    assert _off(norm_graph(tmp_path / "g.onnx", case, rewritten=True), numbers(case[0])) < 1e-3


@pytest.mark.qnn
@needs_compiler
def test_large_numbers_are_right_too(tmp_path: Path) -> None:
    """Their squares are beyond fp16."""
    case = WRONG["tokens first"]
    assert _off(norm_graph(tmp_path / "g.onnx", case, rewritten=True), 1000 * numbers(case[0])) < 1e-3


@pytest.mark.qnn
@needs_compiler
@pytest.mark.parametrize("name", WRONG)
def test_as_they_were_they_are_not(name: str, tmp_path: Path) -> None:
    """The reason for all this: where this fails, norms can stay."""
    assert _off(norm_graph(tmp_path / "g.onnx", WRONG[name], rewritten=False), numbers(WRONG[name][0])) > 0.1


@pytest.mark.qnn
@needs_compiler
def test_a_weight_as_the_first_factor_is_refused_by_the_compiler(tmp_path: Path) -> None:
    path = norm_graph(tmp_path / "g.onnx", RIGHT["33 channels"], rewritten=False, weight_first=True)
    with pytest.raises(BackendError, match="MEM_ALLOC"):
        _off(path, numbers(RIGHT["33 channels"][0]))


def _off(path: Path, x: NDArray[Any]) -> float:
    """Relative distance of the emulator's numbers from the CPU's."""
    from dq_toolchain.backends.qnn.htp.session import open_session

    wanted, got = (
        open_on_cpu(path).run(None, {"x": x})[0],
        open_session(path.read_bytes(), "SM8750").run(None, {"x": x})[0],
    )
    return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))
