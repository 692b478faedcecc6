"""Graphs whose weights are too many to be unpacked at once give the same, and their constants stay integers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from dq_toolchain.backends.common.onnx import session as module
from dq_toolchain.backends.common.onnx.building import constant
from dq_toolchain.backends.common.onnx.session import Sessions, open_session
from tests.memory import resident

WIDTH, LAYERS = 2048, 12


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Int8 weights behind DQ in front of products, one after another: 48 MiB of integers."""
    generator = torch.Generator().manual_seed(0)
    x = ir.Value(name="sample", shape=ir.Shape([1, WIDTH]), type=ir.TensorType(ir.DataType.FLOAT))
    nodes: list[ir.Node] = []
    constants: list[ir.Value] = []
    last = x
    for number in range(LAYERS):
        integers = torch.randint(-128, 128, (WIDTH, WIDTH), generator=generator, dtype=torch.int8)
        weights = [constant(f"q{number}", integers), constant(f"s{number}", torch.full((WIDTH,), 3e-4))]
        unpack = ir.Node("", "DequantizeLinear", weights, [ir.Attr("axis", ir.AttributeType.INT, 1)])
        product = ir.Node("", "MatMul", [last, unpack.outputs[0]])
        nodes, constants, last = [*nodes, unpack, product], [*constants, *weights], product.outputs[0]
    last.name, last.shape, last.type = "output", x.shape, x.type
    graph = ir.Graph([x], [last], nodes=nodes, initializers=constants, opset_imports={"": 19}, name="chain")
    folder = tmp_path_factory.mktemp("chain")
    ir.save(ir.Model(graph, ir_version=9), folder / "steps.onnx", external_data="weights.bin")
    return folder


def test_unfolded_constants_give_the_same_in_a_third_of_the_memory(chain: Path) -> None:
    x = {"sample": np.linspace(-1, 1, WIDTH, dtype=np.float32)[None]}
    grown, outputs = [], []
    for fold in (False, False, True):  # the first loads the runtime, which stays
        before = resident()
        session = open_session(chain / "steps.onnx", 1, fold)
        outputs.append(session.run(None, x)[0])
        grown.append(resident() - before)
        del session
    _, unfolded, folded = outputs
    assert np.allclose(unfolded, folded, rtol=1e-5, atol=1e-5 * np.abs(folded).max())
    assert grown[1] < grown[2] / 3


def test_many_float_weights_are_not_unpacked_at_once(chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    monkeypatch.setattr(module, "open_session", lambda path, threads, fold: opened.append(fold))
    size = 4 * sum(path.stat().st_size for path in chain.iterdir())
    for limit in (size, size + 1):
        monkeypatch.setattr(module, "UNFOLDED_BYTES", limit)
        Sessions(chain)._session("steps")
    assert opened == [False, True]
