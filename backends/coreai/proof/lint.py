"""What is known to be computed wrongly on a device, looked for in the written program."""

from __future__ import annotations

from dq_toolchain.backends.common.qdq.audit import Sites
from dq_toolchain.backends.common.qdq.qparams import QParams
from dq_toolchain.backends.coreai.ir import Program
from dq_toolchain.backends.coreai.proof.reading import source
from dq_toolchain.toolchain.errors import BackendError

ELEMENTWISE = ("mul", "divide")


def check_known_faults(program: Program, sites: Sites, qparams: QParams) -> None:
    """Raise BackendError for a dequantized tensor that enters an elementwise product.

    Source: apple/coreai-torch #112. Such a product comes out 2, 4 or 8 times too large on the Neural Engine where its
    result is quantized with another scale, and nothing warns of it.
    """
    for name, graph in program.functions.items():
        for op in graph.operations:
            if op.name not in ELEMENTWISE:
                continue
            makers = [source(one) for one in op.operands]
            if any(maker is not None and maker.name == "constant" for maker in makers):
                continue
            for maker in makers:
                if maker is not None and maker.name == "dequantize":
                    quantize = maker.operands[0].producer
                    column = None if quantize is None else sites.get(name, {}).get(quantize.label)
                    tensor = maker.label if column is None else qparams.names[column]
                    raise BackendError(
                        f"{tensor} enters an elementwise product in integers, which the Neural Engine computes wrongly "
                        "without an error (apple/coreai-torch #112); nothing was exported; leave --quantize-outputs out"
                    )
