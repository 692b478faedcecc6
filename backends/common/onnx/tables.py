"""Token embeddings as tables of integers: rows are looked up in int8 and multiplied by the scale of each row.

    table int8 -> DequantizeLinear, scale 1 -> Gather(ids) -> Mul(Gather(scales, ids))

The dequantizer of scale 1 changes no number. Compilers of NVIDIA and Qualcomm refuse a Gather of integers, and one behind a
dequantizer with a scale per row is refused by Qualcomm's and unpacks the whole table at NVIDIA's; this form both look up as it is
written.
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
        scales = builder.constant(f"{layer}.weight_scale", weights.weight_scale.view(-1, 1))
        scale = builder.node(node, "Gather", [scales, ids], f"{layer}.scales", [*shape[:-1], 1], {"axis": 0}, dtype=single)
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
        one, zero = (tensor_of(value) for value in held.inputs[1:3])
        if one is None or zero is None or float(one) != 1.0 or int(zero) != 0:
            raise audit_error(f"the table of {layer} is dequantized with {one} and {zero}, expected 1 and 0")
        if not _scaled(node, weights.weight_scale):
            raise audit_error(f"the scales of {layer} differ")


def _scaled(node: Any, scales: torch.Tensor) -> bool:
    """Whether looked up rows are multiplied by these scales (V,), looked up with the same ids."""
    user = only_user(node.outputs[0], "Mul")
    if user is None:
        return False
    other = producer(user.inputs[1] if user.inputs[0] is node.outputs[0] else user.inputs[0], "Gather")
    found = None if other is None else tensor_of(other.inputs[0])
    return found is not None and other.inputs[1] is node.inputs[1] and torch.equal(found.flatten(), scales)


