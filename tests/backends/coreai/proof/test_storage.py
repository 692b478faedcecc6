"""One copy of the weights in the file, shared by all functions; no layer where the audit of the functions does not look."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dq_toolchain.backends.coreai.asset import BYTECODE, load
from dq_toolchain.backends.coreai.ir import Program, module_of, read
from dq_toolchain.backends.coreai.proof.file import prove
from dq_toolchain.backends.coreai.proof.storage import check_storage
from dq_toolchain.backends.coreai.vendor import mlir
from dq_toolchain.toolchain.errors import BackendError
from tests.backends.coreai.conftest import Converted
from tests.backends.coreai.planted import Place, new_constant, planted, replaced

LAYER = "mid_block.resnets.0.conv1"


def test_a_copy_for_one_function_is_found(exact: Converted, tmp_path: Path) -> None:
    """The same integers, one in a byte instead of two."""

    def plant(program: Program) -> None:
        at = Place(program, exact, "steps_g1", LAYER)
        weight, offset = (program.constant(at.unpack.operands[number]) for number in (0, 2))
        assert weight is not None
        assert offset is not None
        at.unpack.raw.operands[0] = new_constant(weight, "si8", at.unpack, "copy")
        at.unpack.raw.operands[2] = new_constant(offset, "si8", at.unpack, "offset")

    asset = planted(exact.asset, tmp_path, plant)
    with pytest.raises(
        BackendError, match=f"functions steps_g0 and steps_g1 do not share the weights of {LAYER}:input"
    ):
        prove(asset, exact.artifact, exact.plan.expected)


def test_equal_weights_under_two_names_are_found(exact: Converted) -> None:
    """Apple's writer joins them, so no file can be made to hold them; the check does not rely on it."""
    program = load(exact.asset)
    at = Place(program, exact, "steps_g1", LAYER)
    weight = program.constant(at.weight.out)
    assert weight is not None
    with module_of(program.owner).context, mlir().Location.unknown():
        replaced(at.weight, weight, "copy")
    with pytest.raises(BackendError, match=f"the weights of {LAYER}:input are stored twice, as blob_.* and copy"):
        check_storage(read(program.owner), 0, exact.site_of)


def test_a_file_that_is_larger_than_what_it_holds_is_found(exact: Converted) -> None:
    program, size = load(exact.asset), (exact.asset / BYTECODE).stat().st_size
    check_storage(program, size, exact.site_of)
    with pytest.raises(BackendError, match="its weights and operations account for at most"):
        check_storage(program, 2 * size, exact.site_of)


def test_a_file_beside_the_program_is_found(exact: Converted, tmp_path: Path) -> None:
    asset = planted(exact.asset, tmp_path, lambda program: None)
    (asset / "weights.bin").write_bytes(b"\0")
    with pytest.raises(BackendError, match=r"weights\.bin is no file of an \.aimodel"):
        prove(asset, exact.artifact, exact.plan.expected)


def test_quantization_in_a_private_graph_is_found(exact: Converted, tmp_path: Path) -> None:
    def plant(program: Program) -> None:
        graph = program.graphs["sdpa_maskless_0"]
        op, ir = graph.operations[-1], mlir()
        numbers = {"f32": 0.1, "si8": 0.0, "f32 ": 0.0, "si32": 0.0}
        operands = [new_constant(np.array(value), kind.strip(), op, kind) for kind, value in numbers.items()]
        value = op.operands[0]
        kind = ir.RankedTensorType.get(list(value.shape), ir.IntegerType.get_signed(8))
        with ir.InsertionPoint(op.raw):
            quantized = ir.Operation.create("coreai.quantize", results=[kind], operands=[value.raw, *operands])
            back = ir.Operation.create(
                "coreai.dequantize", results=[value.raw.type], operands=[quantized.results[0], *operands]
            )
        op.raw.operands[0] = back.results[0]

    with pytest.raises(
        BackendError, match=r"quantize_\d+ is in the private graph sdpa_maskless_0, where no layer may be"
    ):
        prove(planted(exact.asset, tmp_path, plant), exact.artifact, exact.plan.expected)


def test_a_weight_for_a_private_graph_is_found(exact: Converted, tmp_path: Path) -> None:
    """A layer in float, computed by a graph that multiplies what it is given."""

    def plant(program: Program) -> None:
        invoke = next(
            op
            for op in program.functions["steps_g1"].operations
            if op.name == "invoke" and program.callee(op).name == "sdpa_maskless_0"
        )
        shape = invoke.operands[1].shape
        invoke.raw.operands[1] = new_constant(np.linspace(-1, 1, np.prod(shape)).reshape(shape), "f32", invoke, "key")

    with pytest.raises(
        BackendError, match=r"to_k is not in function steps_g1|gives a weight to the private graph sdpa"
    ):
        prove(planted(exact.asset, tmp_path, plant), exact.artifact, exact.plan.expected)


def test_a_layer_whose_result_nothing_uses_is_found(exact: Converted, tmp_path: Path) -> None:
    def plant(program: Program) -> None:
        at = Place(program, exact, "steps_g1", LAYER)
        for user in at.add.out.users:
            for position, one in enumerate(user.operands):
                if one is at.add.out:
                    user.raw.operands[position] = at.quantize.operands[0].raw

    with pytest.raises(
        BackendError, match=f"{LAYER}.*(is not in function|has no part in the output of function) steps_g1"
    ):
        prove(planted(exact.asset, tmp_path, plant), exact.artifact, exact.plan.expected)
