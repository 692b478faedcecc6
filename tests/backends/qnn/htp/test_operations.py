"""Every operation of small networks on the emulator, against exact arithmetic and float32."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from dq_toolchain.backends.qnn.graph.biases import graph_to_compile
from dq_toolchain.backends.qnn.htp.operations import Island, Operations, Product, block_of, compare, compare_blocks
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork
from tests.backends.qnn.conftest import Lowered, made

LAYER = "down_blocks.0.resnets.0.conv1"


def compared(form: Lowered, path: Path | None = None) -> Operations:
    simulated = SimulatedNetwork(form.artifact)
    return compare(path or form.graphs[0], form.artifact, simulated, 0, form.inputs(0))


@pytest.mark.qnn
def test_every_operation_computes_what_is_known_of_the_chip(form: Lowered) -> None:
    found = compared(form)
    assert found.faults == ()
    assert len(found.products) == len([site for site in form.artifact.sites if site.operand in ("input", "q", "probs")])
    assert max(each.different for each in found.products) < 0.1  # of a few values one may be at a tie
    assert {each.bits for each in found.islands} <= {0, 8, 16}
    assert sum(each.bits == 0 for each in found.islands) == 1  # the network's output
    assert not [path for path in form.graphs[0].parent.iterdir() if path.name.startswith(".")]


@pytest.mark.qnn
def test_sums_of_the_graph_for_the_npu_have_no_bias(wide: Lowered, tmp_path_factory: pytest.TempPathFactory) -> None:
    for form in (wide, made("a16-w4", tmp_path_factory)):
        npu = graph_to_compile(form.folder / "model", form.bundle.methods[0])
        assert npu != form.graphs[0]
        assert compared(form, npu).faults == ()


@pytest.mark.qnn
@pytest.mark.parametrize("what", ["weight_q", "bias", "input.scale"])
def test_a_wrong_number_shows_at_its_product(what: str, wide: Lowered, tmp_path: Path) -> None:
    model = ir.load(wide.graphs[0])
    names = {"weight_q": f"{LAYER}.weight_q", "bias": f"unet.{LAYER}.bias", "input.scale": f"{LAYER}:input.scale"}
    value = model.graph.initializers[names[what]]
    assert value.const_value is not None
    array = value.const_value.numpy().copy()
    array = array + np.int8(1) if what == "weight_q" else array * np.float32(1.5) + np.float32(what == "bias")
    value.const_value = ir.tensor(array, name=value.name)
    shutil.copy(wide.graphs[0].with_name("weights.bin"), tmp_path)
    ir.save(model, tmp_path / "wrong.onnx")
    found = compared(wide, tmp_path / "wrong.onnx")
    assert [each.name for each in found.products if each.steps > 1] == [LAYER]
    assert found.faults[0].startswith(f"{LAYER}: ")


@pytest.mark.qnn
def test_blocks_compute_what_float32_does(wide: Lowered) -> None:
    found = compare_blocks(wide.graphs[0], wide.artifact, SimulatedNetwork(wide.artifact), 0, wide.inputs(0))
    assert sum(each.products for each in found) == len(compared(wide).products)
    assert len({each.name for each in found}) == len(found) > 5
    assert max(each.relative for each in found) < 5e-3


def test_names_of_blocks() -> None:
    names = {
        "conv_in": "conv_in",
        "mid_block.attentions.0.to_q": "mid_block.attentions.0",
        "mid_block.attentions.0:q": "mid_block.attentions.0",
        "down_blocks.0.resnets.1.conv1": "down_blocks.0.resnets.1",
        "up_blocks.2.attentions.0.transformer_blocks.0.attn1.to_out.0": "up_blocks.2.attentions.0",
        "up_blocks.1.upsamplers.0.conv": "up_blocks.1.upsamplers.0",
    }
    assert {name: block_of(name) for name in names} == names


def test_faults_name_what_is_wrong_and_how_much() -> None:
    right = Operations(
        (Product("a", 1, 13, 0.01),), (Island("b", 1.9e-3, 50, 16), Island("c", 0.1, 1, 8), Island("output", 0.0, 0, 0))
    )
    assert right.faults == ()
    wrong = replace(
        right, products=(Product("a", 2, 2, 0.1),), islands=(Island("b", 2.1e-3, 60, 16), Island("c", 0.0, 2, 8))
    )
    assert wrong.faults == (
        "a: 2 steps from exact arithmetic", "b: 0.0021 (60 steps) from float32", "c: 0 (2 steps) from float32",
    )  # fmt: skip
