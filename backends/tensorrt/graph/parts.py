"""Graphs of text encoders and decoders: weights int8 per channel in all; convolutions with kernels for it also take int8.

Linear layers, and convolutions of few channels, have their weights unpacked by the builder: a text encoder runs once per prompt and
a static range of all tokens costs it more than 8 bits are worth.
"""

from __future__ import annotations

from typing import Any

from dq_toolchain.backends.common.onnx.parts import as_artifact, export_part, sites_of
from dq_toolchain.backends.common.onnx.tables import put_tables
from dq_toolchain.backends.tensorrt.graph.rewrite import OPSET, Rewriter
from dq_toolchain.backends.tensorrt.support import in_float
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.parts.image_to_image import VAE_ENCODER
from dq_toolchain.toolchain.parts.part import DECODER, Part

BITS = 8


def in_terms_of_networks(part: Part) -> Artifact:
    """The part with a site for every convolution that runs in INT8."""
    if part.kind not in (DECODER, VAE_ENCODER):
        return as_artifact(part, ())
    narrow = in_float(as_artifact(part, ()))
    wide = [name for name, weights in part.layers.items() if weights.weight_q.dim() == 4 and name not in narrow]
    return as_artifact(part, sites_of(part, wide, "input", BITS, "symmetric"))


def part_graph(part: Part, artifact: Artifact, precision: str) -> Any:
    """The onnx_ir model of a part.

    Args:
        artifact: ``in_terms_of_networks``. precision: between the integer layers, "fp32" or "fp16".
    Raises:
        BackendError: torch cannot export it, or a layer is not in the graph.
    """
    rewriter = Rewriter(export_part(part, precision, OPSET), artifact, precision, {}, ratio=False)
    put_tables(rewriter, part)
    return rewriter.run()
