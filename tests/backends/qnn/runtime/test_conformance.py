"""Each operation of every form computes what the simulation's operation computes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from dq_toolchain.backends.qnn.runtime.conformance import compare
from dq_toolchain.toolchain.quant.qparams import activation_type
from dq_toolchain.toolchain.quant.site import results_of
from dq_toolchain.toolchain.simulation.network import ActivationTable, SimulatedNetwork
from tests.backends.qnn.conftest import Lowered, load_graph

LAYER = "down_blocks.0.resnets.0.conv1"


def test_every_operation_agrees(form: Lowered) -> None:
    """A result is at most half a step from what it is of, and as much more as sums of float32 make of a tie."""
    k = form.artifact.table.calls - 1
    found = compare(form.graphs[-1], form.artifact, SimulatedNetwork(form.artifact), k, form.inputs(k, seed=k))
    assert len(found) == len([site for site in form.artifact.sites if site.operand in ("input", "q", "probs")])
    assert max(each.operand_steps for each in found) <= 1
    assert max(each.different for each in found) < 1e-3
    assert max(each.result_steps for each in found) <= 0.6
    assert not [path for path in form.graphs[0].parent.iterdir() if "pieces" in path.name]


@pytest.mark.parametrize("what", ["input.scale", "output.scale", "weight_q"])
def test_a_wrong_number_shows(what: str, wide: Lowered, tmp_path: Path) -> None:
    model = ir.load(wide.graphs[0])
    name = f"{LAYER}.{what}" if what == "weight_q" else f"{LAYER}:{what}"
    value = model.graph.initializers[name]
    assert value.const_value is not None
    array = value.const_value.numpy().copy()
    array = array + np.int8(1) if what == "weight_q" else array * np.float32(1.5)
    value.const_value = ir.tensor(array, name=name)
    shutil.copy(wide.graphs[0].with_name("weights.bin"), tmp_path)
    ir.save(model, tmp_path / "wrong.onnx")
    found = compare(tmp_path / "wrong.onnx", wide.artifact, SimulatedNetwork(wide.artifact), 0, wide.inputs(0))
    wrong = next(each for each in found if each.name == LAYER)
    assert wrong.operand_steps > 100 if what == "input.scale" else wrong.result_steps > 10 or what == "output.scale"
    others = [each for each in found if each.name != LAYER]
    assert max(each.result_steps for each in others) <= 0.6


def test_results_are_rounded_as_the_simulation_rounds_them(wide: Lowered) -> None:
    """The simulation's table of every result holds what the file of each step group does, which is unsigned."""
    tables = {
        each.site: each for each in SimulatedNetwork(wide.artifact).modules() if isinstance(each, ActivationTable)
    }
    results = [site.name for site in results_of(wide.artifact.sites)]
    for group, path in enumerate(wide.graphs):
        held = load_graph(path).initializers
        for name in results:
            scale, zero_point = (held[f"{name}.{what}"].const_value.numpy() for what in ("scale", "zero_point"))
            assert tables[name].kind == activation_type(16)
            assert (float(scale), int(zero_point) - 2**15) == (
                float(tables[name].scale[group]),
                int(tables[name].zero_point[group]),
            )
