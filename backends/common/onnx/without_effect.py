"""Operations of an exported graph that do nothing in torch, and that ONNX does not allow."""

from __future__ import annotations

from typing import Any


def remove_squeezes(model: Any) -> Any:
    """Take squeezes of axes longer than one out of an onnx_ir model, in place: torch leaves such axes as they are."""
    graph = model.graph
    for node in [node for node in graph if node.op_type == "Squeeze"]:
        x, out = node.inputs[0], node.outputs[0]
        if x.shape is None or out.shape is None or x.shape != out.shape or out in graph.outputs:
            continue
        for user, index in list(out.uses()):
            user.replace_input_with(index, x)
        graph.remove(node, safe=True)
    return model
