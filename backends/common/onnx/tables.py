"""Token embeddings as tables of integers: rows are looked up in int8 and multiplied by the scale of each row.

    table int8 -> DQ -> Gather(ids) -> Q -> DQ -> Mul(Gather(scales, ids))

Q and DQ have scale 1 and change no number. Compilers of NVIDIA and Qualcomm refuse a Gather of integers alone, and Qualcomm's one
behind a DQ with a scale per row; without Q behind it, it unpacks the table to twice its size. Of this form both keep the table in
int8, as was measured.
"""

from __future__ import annotations

from typing import Any

import torch

from dq_toolchain.backends.common.onnx.audit import audit_error, check_all_found
from dq_toolchain.backends.common.onnx.building import GraphBuilder, layer_of
from dq_toolchain.backends.common.onnx.reading import only_user, producer, tensor_of
from dq_toolchain.toolchain.parts.part import Part


def put_tables(builder: GraphBuilder, part: Part) -> None:
    """Replace the lookups of a float graph, in place. Raises BackendError: a table is not looked up once."""
    ir, left = builder.ir, list(part.tables)
    for node in [node for node in builder.graph if node.op_type == "Gather" and layer_of(node) in part.tables]:
        layer = layer_of(node)
        if layer not in left:
            raise audit_error(f"{layer} is looked up twice")
        left.remove(layer)
        weights, (ids, out) = part.layers[layer], (node.inputs[1], node.outputs[0])
        users, shape = list(out.uses()), list(out.shape)
        table = [
            builder.constant(f"{layer}.weight_q", weights.weight_q),
            builder.constant(f"{layer}.one", torch.ones(())),
            builder.constant(f"{layer}.zero", torch.zeros((), dtype=torch.int8)),
        ]
        single = ir.DataType.FLOAT
        held = builder.node(
            node, "DequantizeLinear", table, f"{layer}.weight_dequantize", weights.weight_q.shape, dtype=single
        )
        rows = builder.node(node, "Gather", [held, ids], layer, shape, {"axis": 0}, dtype=single)
        rows = builder.node(
            node, "QuantizeLinear", [rows, *table[1:]], f"{layer}.quantize", shape, dtype=ir.DataType.INT8
        )
        rows = builder.node(node, "DequantizeLinear", [rows, *table[1:]], f"{layer}.dequantize", shape, dtype=single)
        scales = builder.constant(f"{layer}.weight_scale", weights.weight_scale.view(-1, 1))
        scale = builder.node(
            node, "Gather", [scales, ids], f"{layer}.scales", [*shape[:-1], 1], {"axis": 0}, dtype=single
        )
        last = builder.node(node, "Mul", [rows, scale], f"{layer}.scaled", shape, dtype=single)
        if builder.float != single:
            last = builder.node(node, "Cast", [last], f"{layer}.cast", shape, {"to": int(builder.float)})
        builder.instead(out, users, last, f"{layer}.replaced")
    check_all_found(left)


def check_tables(graph: Any, part: Part) -> None:
    """Raise BackendError unless every table of a saved graph holds the part's integers and scales, and is used with both."""
    nodes = {str(node.name): node for node in graph}
    for layer in part.tables:
        node, weights = nodes.get(layer), part.layers[layer]
        if node is None or node.op_type != "Gather":
            raise audit_error(f"{layer} is not in the graph")
        held = producer(node.inputs[0], "DequantizeLinear")
        integers = None if held is None else tensor_of(held.inputs[0])
        if integers is None or integers.dtype != torch.int8:
            raise audit_error(f"the table of {layer} is in float")
        if not torch.equal(integers, weights.weight_q):
            raise audit_error(f"the integers of {layer} differ")
        quantize = only_user(node.outputs[0], "QuantizeLinear")
        back = None if quantize is None else only_user(quantize.outputs[0], "DequantizeLinear")
        if back is None or not all(_changes_nothing(each) for each in (held, quantize, back)):
            raise audit_error(f"the rows of {layer} are quantized with another scale than 1 or zero_point than 0")
        if not _scaled(back.outputs[0], node.inputs[1], weights.weight_scale):
            raise audit_error(f"the scales of {layer} differ")


def _changes_nothing(node: Any) -> bool:
    """Whether a Q or DQ has scale 1 and zero_point 0 in int8."""
    one, zero = (tensor_of(value) for value in node.inputs[1:3])
    return one is not None and zero is not None and float(one) == 1.0 and int(zero) == 0 and zero.dtype == torch.int8


def _scaled(rows: Any, ids: Any, scales: torch.Tensor) -> bool:
    """Whether looked up rows are multiplied by these scales (V,), looked up with the same ids."""
    user = only_user(rows, "Mul")
    if user is None:
        return False
    other = producer(user.inputs[1] if user.inputs[0] is rows else user.inputs[0], "Gather")
    found = None if other is None else tensor_of(other.inputs[0])
    return found is not None and other.inputs[1] is ids and torch.equal(found.flatten(), scales)
