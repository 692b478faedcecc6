"""Each operation of every form computes what the simulation's operation computes."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx_ir as ir
import pytest

from dq_toolchain.backends.tensorrt.runtime.conformance import compare
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork
from tests.backends.tensorrt.conftest import Lowered


def test_every_operation_agrees(form: Lowered) -> None:
    simulated = SimulatedNetwork(form.artifact)
    half = form.bundle.form.endswith("fp16")
    for k in (0, form.artifact.table.calls - 1):
        found = compare(form.graph_of(k), form.artifact, simulated, k, form.inputs(k, seed=k))
        products = [site for site in form.artifact.sites if site.operand in ("input", "q", "probs")]
        assert found.compared == len(products)
        assert found.largest <= (1 if half else 0)
        assert found.different < (0.01 if half else 1e-6) * found.places
        assert found.products > 0
        assert found.output_error < (5e-3 if half else 2e-6), found.worst
    assert not [path for path in form.graphs[0].parent.iterdir() if "pieces" in path.name]


@pytest.mark.parametrize("what", ["scale", "weight"])
def test_a_wrong_number_shows(what: str, static: Lowered, tmp_path: Path) -> None:
    """One scale twice as large, or one weight off by 10: the comparison names the layer, or counts integers."""
    model = ir.load(static.graph_of(0))
    name = "down_blocks.0.resnets.0.conv1:input.scale" if what == "scale" else "down_blocks.0.resnets.0.conv1.weight_q"
    value = model.graph.initializers[name]
    assert value.const_value is not None
    array = value.const_value.numpy().copy()
    if what == "scale":
        array *= 2
    else:
        array[0, 0, 0, 0] += 10
    value.const_value = ir.tensor(array, name=name)
    shutil.copy(static.graphs[0].with_name("weights.bin"), tmp_path)
    ir.save(model, tmp_path / "wrong.onnx")
    found = compare(tmp_path / "wrong.onnx", static.artifact, SimulatedNetwork(static.artifact), 0, static.inputs(0))
    if what == "scale":
        assert found.different > 100
    else:
        assert found.output_error > 1e-3
        assert found.worst == "down_blocks.0.resnets.0.conv1"
