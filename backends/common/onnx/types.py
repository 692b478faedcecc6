"""Types that torch widens by itself and ONNX does not."""

from __future__ import annotations

from typing import Any

from dq_toolchain.backends.common.onnx.libraries import onnx_ir


def widen_concatenations(model: Any) -> Any:
    """Cast to float32 what a concatenation of an onnx_ir model holds in fp16 beside float32, in place: as torch computes it.

    SDXL's network joins sinusoids, which are float32, with text states, which are not.
    """
    library = onnx_ir()
    wide = library.DataType.FLOAT
    for node in [node for node in model.graph if node.op_type == "Concat"]:
        if {x.dtype for x in node.inputs} != {wide, library.DataType.FLOAT16}:
            continue
        for index, x in enumerate(node.inputs):
            if x.dtype == wide:
                continue
            cast = library.node("Cast", [x], attributes={"to": wide})
            (out,) = cast.outputs
            out.name, out.shape, out.dtype = f"{node.outputs[0].name}.wide{index}", x.shape, wide
            model.graph.insert_before(node, cast)
            node.replace_input_with(index, out)
        node.outputs[0].dtype = wide
    return model
