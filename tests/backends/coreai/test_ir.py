"""Every private name of coreai-core and coreai-torch that reading and patching need, one test each.

Where a new version fails, it fails here: the rest of the target stands on these names alone.
"""

from __future__ import annotations

import gc
import inspect
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dq_toolchain.backends.common.call import Call
from dq_toolchain.backends.coreai import ir, vendor
from dq_toolchain.backends.coreai.asset import load
from dq_toolchain.backends.coreai.graph.convert import convert
from dq_toolchain.backends.coreai.ir import NUMPY, PACKED, Program, module_of, read
from tests.backends.coreai.conftest import Converted
from tests.backends.coreai.planted import new_constant

TYPES = [*NUMPY, *PACKED]


class Scaled(nn.Module):
    """A product with a weight that is large enough to be a blob, and a norm that becomes a private graph."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(2, 4)
        self.register_buffer("weight", torch.linspace(-1, 1, 64 * 64).reshape(64, 64))

    def forward(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor]:
        return (self.norm(sample.reshape(1, 4, 4, 4)).reshape(1, 64) @ self.weight.T + timestep,)


@pytest.fixture(scope="module")
def program() -> Program:
    return read(convert(Scaled(), Call(torch.randn(1, 64), torch.ones(1), {}), False, "main"))


def _main(program: Program) -> Any:
    return program.functions["main"]


def test_a_program_has_a_module(program: Program) -> None:
    """``AIProgram._module._mlir_module``, its ``body`` and its ``context``."""
    module = module_of(program.owner)
    assert [op.operation.name for op in module.body.operations][-1] == "coreai.graph"
    assert module.context is not None
    assert module.operation.verify()


def test_operations_have_a_prefix(program: Program) -> None:
    """``coreai.`` and ``coreai.decomposable.broadcasting_``."""
    kinds = {op.raw.name for op in _main(program).operations}
    assert {"coreai.constant", "coreai.invoke", "coreai.decomposable.broadcasting_batch_matmul"} <= kinds


@pytest.mark.parametrize("name", ["sym_name", "function_type", "arg_attrs", "res_attrs"])
def test_a_graph_has_an_attribute(name: str, program: Program) -> None:
    assert name in _main(program).raw.attributes


def test_private_graphs_are_marked(program: Program) -> None:
    """``priv``."""
    assert {graph.private for graph in program.graphs.values()} == {True, False}
    assert list(program.functions) == ["main"]


def test_an_invoke_names_its_graph(program: Program) -> None:
    """``callee``."""
    invoke = next(op for op in _main(program).operations if op.name == "invoke")
    assert program.callee(invoke).private
    assert str(invoke.raw.attributes["callee"]).startswith("#param.constant<@")


def test_arguments_and_results_are_named(program: Program) -> None:
    """``coreai.name``."""
    assert list(_main(program).inputs) == ["sample", "timestep"]
    assert list(_main(program).outputs) == ["output"]


def test_a_large_constant_is_a_blob_and_a_small_one_is_not(program: Program) -> None:
    """The text of ``dense_resource``."""
    constants = [op for op in _main(program).operations if op.name == "constant"]
    blobs = [name for op in constants if (name := ir.resource_name(op.raw)) is not None]
    assert len(blobs) == 1
    assert blobs[0].startswith("dense_resource<")
    assert len(constants) > 1


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("dtype", TYPES)
def test_a_constant_of_every_type_is_read_back(dtype: str, odd: bool, program: Program) -> None:
    """``DenseResourceElementsAttr.get_from_buffer`` in, ``copy_constant_value_to_array`` out."""
    shape = (3, 5, 1) if odd else (4, 2, 8)
    size = int(np.prod(shape))
    bits = int(dtype.lstrip("suif"))
    if dtype.startswith("f"):
        numbers = np.linspace(-3, 3, size)
    elif dtype == "i1":
        numbers = np.arange(size) % 3 == 0
    else:
        low = -(2 ** (bits - 1)) if dtype.startswith("s") else 0
        numbers = low + np.arange(size) * 3 % 2 ** min(bits, 16)
    wanted = numbers.astype(PACKED[dtype] if dtype in PACKED else NUMPY[dtype]).reshape(shape)
    op = _main(program).operations[0]
    with module_of(program.owner).context, vendor.mlir().Location.unknown():
        made = new_constant(wanted, dtype, op, f"read_back_{dtype}_{odd}")
    kind = vendor.mlir().RankedTensorType(made.type)
    found = ir.read_constant(made.owner, str(kind.element_type), tuple(kind.shape))
    made.owner.erase()
    assert str(kind.element_type) == dtype
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)


def test_a_number_becomes_a_constant(program: Program) -> None:
    """``ConstantOp``, ``DenseElementsAttr.get_splat``, ``IntegerType.get_signed``."""
    from dq_toolchain.backends.coreai.patch import number

    op = _main(program).operations[0]
    for value, dtype in ((0.1, "f32"), (0.1, "f16"), (-128, "si8")):
        with module_of(program.owner).context, vendor.mlir().Location.unknown(), vendor.mlir().InsertionPoint(op.raw):
            made = number(value, dtype)
        found = ir.read_constant(made.owner, dtype, ())
        made.owner.erase()
        assert found == NUMPY[dtype](value)


@pytest.mark.parametrize(
    "name", ["_create_unknown_location", "_get_nested_operations", "set_op_location", "set_block_arg_location"]
)
def test_locations_can_be_removed(name: str) -> None:
    assert callable(getattr(vendor.debug_info(), name))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("quantize", ["input", "scale", "output_dtype", "zero_point"]),
        ("dequantize", ["input", "scale", "zero_point"]),
        ("constexpr_blockwise_shift_scale", None),
        ("lut_to_dense", None),
    ],
)
def test_an_operator_is_registered(name: str, arguments: list[str] | None) -> None:
    """``torch.ops.coreai``, with arguments in the order in which lowering gives them."""
    schema = getattr(vendor.operators(), name).default._schema
    if arguments is not None:
        assert [argument.name for argument in schema.arguments][: len(arguments)] == arguments


def test_a_program_is_saved_with_metadata_that_can_be_changed() -> None:
    """``save_asset``, ``update_metadata``, ``AIModelAsset.load``, ``executable``: public, in a beta."""
    assert callable(vendor.converter().TorchConverter)
    asset = vendor.authoring().AIModelAsset
    assert {"load", "executable", "update_metadata", "program"} <= set(dir(asset))
    assert "path" in inspect.signature(vendor.authoring().AIProgram.save_asset).parameters


def test_a_program_goes_with_its_last_reference(exact: Converted) -> None:
    """Weights of gigabytes must not wait for the garbage collector."""
    gc.disable()
    try:
        program = load(exact.asset)
        alive = weakref.WeakSet[object](program.graphs.values())
        alive.update(op for graph in program.graphs.values() for op in graph.operations)
        assert len(alive) > 100
        del program
        assert not alive
    finally:
        gc.enable()
