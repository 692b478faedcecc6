"""Four-bit weights as tables: uint4 indices into 16 integers, which the Neural Engine unpacks while it computes.

Source: coremltools' guide to joint compression (4-bit palettization with an int8 table and int8 activations) and its
pass reorder_lut_per_channel_scale, which puts the scale of a channel behind the product, as ``graph.py`` does.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from dq_toolchain.backends.coreml.package import PRODUCTS
from dq_toolchain.backends.coreml.vendor import mil_builder, mil_passes, mil_types

NAME = "dq_toolchain::weights_as_tables"
VALUES = np.arange(-8, 8, dtype=np.int8)


@functools.cache
def lut_pass() -> str:
    """Register the pass with coremltools, once; returns its name for a pipeline."""
    graph_pass, pass_registry = mil_passes()

    @pass_registry.register_pass(namespace="dq_toolchain")
    class weights_as_tables(graph_pass):  # type: ignore[misc, valid-type]
        def apply(self, prog: Any) -> None:
            for function in prog.functions.values():
                for op in list(function.operations):
                    if _is_table(op):
                        _replace(op)

    return NAME


def _is_table(op: Any) -> bool:
    """Four-bit integers with one scale for the whole tensor: what ``graph.py`` makes of weights that become tables."""
    if op.op_type != "constexpr_blockwise_shift_scale" or op.offset is not None:
        return False
    feeds_product = all(child.op_type in PRODUCTS for child in op.outputs[0].child_ops)
    four_bits = mil_types().builtin_to_string(op.data.dtype) == "int4"
    return feeds_product and four_bits and len(np.unique(np.asarray(op.scale.val))) == 1


def _replace(op: Any) -> None:
    mb, types = mil_builder(), mil_types()
    ones, block = (1,) * op.data.rank, op.enclosing_block
    uint4 = types.nptype_from_builtin(types.string_to_builtin("uint4"))
    scale = np.asarray(op.scale.val).reshape(-1)[:1]
    with block:
        table = mb.constexpr_blockwise_shift_scale(
            data=VALUES.reshape(*ones, -1, 1), scale=scale.reshape(*ones, 1, 1), name=f"{op.name}_table", before_op=op
        )
        indices = (np.asarray(op.data.val).astype(np.int8) + 8).astype(uint4)
        weight = mb.constexpr_lut_to_dense(indices=indices, lut=table, name=f"{op.name}_lut", before_op=op)
        block.replace_uses_of_var_after_op(anchor_op=op, old_var=op.outputs[0], new_var=weight, force_replace=True)
        block.remove_ops([op])
