"""The audit finds, in the file, every planted difference from the artifact, and names the site."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dq_toolchain.backends.coreai.ir import Operation, Program, module_of
from dq_toolchain.backends.coreai.patch import keep_only
from dq_toolchain.backends.coreai.proof.file import prove
from dq_toolchain.backends.coreai.vendor import mlir
from dq_toolchain.toolchain.errors import BackendError
from tests.backends.coreai.conftest import Converted
from tests.backends.coreai.planted import Place, constant_of, new_constant, operand, planted, replaced

LAYER = "mid_block.resnets.0.conv1"


Fault = Callable[[Place], None]


def _next_fp16(at: Place) -> float:
    scale = at.program.constant(at.quantize.operands[1])
    return float(np.nextafter(np.float16(scale), np.float16(np.inf)))


def scale_moved(at: Place) -> None:
    for op in (at.quantize, at.dequantize):
        operand(op, 1, _next_fp16(at), "f32")


def scale_of_dequantize_moved(at: Place) -> None:
    operand(at.dequantize, 1, _next_fp16(at), "f32")


def zero_point_moved(at: Place) -> None:
    zero_point = int(at.program.constant(at.quantize.operands[2]))  # type: ignore[arg-type]
    for op in (at.quantize, at.dequantize):
        operand(op, 2, zero_point + 1, "si8")


def second_offset(at: Place) -> None:
    operand(at.quantize, 3, 1e-3, "f32")


def weight_bit_flipped(at: Place) -> None:
    replaced(at.weight, _moved(at, at.weight, lambda number: number ^ 1))


def _moved(at: Place, op: Operation, change: Callable[[Any], Any]) -> np.ndarray:
    numbers = at.program.constant(op.out)
    assert numbers is not None
    moved = numbers.copy()
    moved.reshape(-1)[3] = change(moved.reshape(-1)[3])
    return moved


def weight_scale_moved(at: Place) -> None:
    replaced(at.scale, _moved(at, at.scale, lambda number: np.nextafter(number, np.float32(1))))


def weight_scale_per_block(at: Place) -> None:
    """A scale for every input channel too."""
    shape = (*at.weight.out.shape[:2], 1, 1)
    at.unpack.raw.operands[1] = new_constant(np.full(shape, 0.01), "f32", at.unpack, "scales")
    at.unpack.raw.operands[2] = new_constant(np.zeros(shape), "si4", at.unpack, "zero_points")
    at.unpack.raw.operands[3] = new_constant(np.zeros(shape), "f32", at.unpack, "offsets")


def weight_offset(at: Place) -> None:
    offset = constant_of(at.unpack, 3)
    replaced(offset, np.full(offset.out.shape, 0.5))


def bias_moved(at: Place) -> None:
    replaced(at.bias, _moved(at, at.bias, lambda number: np.nextafter(number, np.float32(9))))


def quantization_bypassed(at: Place) -> None:
    user = at.dequantize.out.users[0]
    user.raw.operands[0] = at.quantize.operands[0].raw


def computed_in_float(at: Place) -> None:
    weight, scale = (at.program.constant(op.out) for op in (at.weight, at.scale))
    assert weight is not None
    assert scale is not None
    at.product.raw.operands[1] = new_constant(weight * scale, "f32", at.product, "in_float")


FAULTS: dict[str, tuple[Fault, str]] = {
    "one fp16 step of a scale": (
        scale_moved,
        rf"quantize of {LAYER}:input has scale and zero_point .* in step group 1, the artifact has",
    ),
    "one fp16 step, only the dequantize": (
        scale_of_dequantize_moved,
        rf"dequantize of {LAYER}:input has scale and zero_point .* in step group 1",
    ),
    "a zero_point of one more": (zero_point_moved, rf"quantize of {LAYER}:input has scale and zero_point"),
    "a second offset": (second_offset, r"quantize_\d+ has a second offset"),
    "one bit of a weight": (weight_bit_flipped, rf"has integers of no layer that is left; nearest is {LAYER};"),
    "one ulp of a weight scale": (weight_scale_moved, f"the weight scales of {LAYER} differ"),
    "a weight scale per block": (weight_scale_per_block, r"conv2d_\d+ has a weight scale per block"),
    "an offset of the weights": (weight_offset, r"conv2d_\d+ has weights with an offset"),
    "one ulp of a bias": (bias_moved, f"the bias of {LAYER} differs"),
    "Q/DQ bypassed": (quantization_bypassed, f"{LAYER}:input is not quantized: silu feeds the product"),
    "a float layer": (
        computed_in_float,
        rf"conv2d_\d+ runs in float and is no layer of keep_float; nearest is {LAYER};",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_file_is_found_and_named(fault: str, exact: Converted, tmp_path: Path) -> None:
    plant, text = FAULTS[fault]
    asset = planted(exact.asset, tmp_path, lambda program: plant(Place(program, exact, "steps_g1", LAYER)))
    with pytest.raises(BackendError, match=text):
        prove(asset, exact.artifact, exact.plan.expected)


def test_exchanged_functions_are_found(exact: Converted, tmp_path: Path) -> None:
    def exchange(program: Program) -> None:
        for graph, name in zip(program.functions.values(), ("steps_g1", "steps_g0"), strict=True):
            graph.raw.attributes["sym_name"] = mlir().StringAttr.get(name)

    asset = planted(exact.asset, tmp_path, exchange)
    with pytest.raises(BackendError, match=r"quantize of \S+:input has scale and zero_point .* in step group 0"):
        prove(asset, exact.artifact, exact.plan.expected)


def test_a_function_that_is_missing_or_too_many_is_named(exact: Converted, tmp_path: Path) -> None:
    missing = planted(exact.asset, tmp_path, lambda program: keep_only(program, "steps_g0"))
    with pytest.raises(BackendError, match="function steps_g1 is missing"):
        prove(missing, exact.artifact, exact.plan.expected)

    def add(program: Program) -> None:
        copy = program.functions["steps_g0"].raw.clone(mlir().InsertionPoint(module_of(program.owner).body))
        copy.attributes["sym_name"] = mlir().StringAttr.get("steps_g2")

    with pytest.raises(BackendError, match="function steps_g2 is no function of this artifact"):
        prove(planted(exact.asset, tmp_path, add), exact.artifact, exact.plan.expected)


@pytest.mark.parametrize("name", ["main.mlirb", "main.hash"])
def test_one_bit_of_the_file_is_found(name: str, exact: Converted, tmp_path: Path) -> None:
    """Core AI itself reads a program whose hash does not match."""
    copy = Path(shutil.copytree(exact.asset, tmp_path / "model.aimodel"))
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BackendError, match=r"main\.mlirb is damaged, its SHA-256 is not that of main\.hash"):
        prove(copy, exact.artifact, exact.plan.expected)
