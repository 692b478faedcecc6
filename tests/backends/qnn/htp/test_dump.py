"""The compiled graph as the compiler writes it, and what is compared with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dq_toolchain.backends.qnn.htp import dump
from dq_toolchain.backends.qnn.htp.check import compare
from dq_toolchain.backends.qnn.htp.dump import Op, TensorInfo, ops_of, read_dump
from dq_toolchain.backends.qnn.htp.promised import Promise, fault
from dq_toolchain.backends.qnn.htp.session import open_session
from dq_toolchain.toolchain.errors import BackendError
from tests.backends.qnn.htp.graphs import chain

NAMES = [f"conv{layer}" for layer in range(6)]
X, W, Y = (
    TensorInfo("x", "uint16", 0.5, 32768),
    TensorInfo("w", "int8", None, None),
    TensorInfo("y", "uint16", 0.25, 30000),
)
PROMISE = Promise("a.b", "Conv", (X, W), Y)


def op(name: str = "a.b_token_7", kind: str = "Conv2d", x: TensorInfo = X, w: TensorInfo = W, y: TensorInfo = Y) -> Op:
    return Op(name, kind, (x, w), (y,))


def test_names_of_operations_lead_back_to_the_node() -> None:
    ops = (op("a.b"), op("a.b_token_12"), op("a.b.c_token_1"), op("axb"), op("a.b_q"))
    assert [each.name for each in ops_of(ops, "a.b")] == ["a.b", "a.b_token_12"]


def test_what_is_promised_is_found() -> None:
    assert fault(PROMISE, (op(),)) is None


@pytest.mark.parametrize(
    ("ops", "text"),
    [
        ((), "the compiler made 0 products of it, expected 1"),
        ((op(kind="ElementWiseMultiply"),), "the compiler made 0 products of it"),
        ((op(x=TensorInfo("x", "float32", None, None)),), "the compiler runs it in float, as Conv2d(float32, int8) -> uint16"),
        ((op(y=TensorInfo("y", "uint8", 0.25, 30000)),), "its result is uint8 in the compiled graph, the file has uint16"),
        ((op(x=TensorInfo("x", "uint16", 0.51, 32768)),), "its first operand has scale 0.51 and zero point 32768 in the compiled"),
        ((op(y=TensorInfo("y", "uint16", 0.25, 30001)),), "its result has scale 0.25 and zero point 30001 in the compiled graph"),
        ((op(), op("a.b")), "the compiler made 2 products of it, expected 1"),
    ],
)  # fmt: skip
def test_what_is_not_as_promised_is_said(ops: tuple[Op, ...], text: str) -> None:
    found = fault(PROMISE, ops)
    assert found is not None
    assert found.startswith(text)


def _written(folder: Path, content: Any) -> None:
    (folder / "g.json").write_text(json.dumps(content))


def test_another_form_of_the_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"made 0 graphs of one \(expected 1\)"):
        read_dump(tmp_path)
    _written(tmp_path, {"graph": {"nodes": {}}})
    with pytest.raises(BackendError, match=r"has another form than that of version 2\.7\.0 \(KeyError\('tensors'\)\)"):
        read_dump(tmp_path)


@pytest.mark.qnn
def test_a_compiled_graph_is_what_the_file_asks_for_and_no_other(tmp_path: Path) -> None:
    path, folder = tmp_path / "steps_g0.onnx", tmp_path / "dump"
    path.write_bytes(chain(0, channels=32))
    folder.mkdir()
    open_session(path, "SM8750", options=dump.provider_options(folder))
    compare(path, folder, NAMES, "SM8750")
    with pytest.raises(
        BackendError, match=r"1 of 2 products of steps_g0.onnx .* the first is conv9: the graph has no such product"
    ):
        compare(path, folder, ["conv0", "conv9"], "SM8750")
    path.write_bytes(chain(1, channels=32))  # other scales than those that were compiled
    with pytest.raises(BackendError, match=r"6 of 6 products .* the first is conv0: its first operand has scale"):
        compare(path, folder, NAMES, "SM8750")
