"""Graphs of text encoders and decoders for the NPU: products as those of a network in the form a16, or all in float.

Every layer takes uint16 and gives uint16, by the ranges that were measured; products of attention, softmax and norms stay in float,
which the NPU computes in fp16. Token embeddings are tables of int8 (``common.onnx.tables``).
"""

from __future__ import annotations

from typing import Any

from dq_toolchain.backends.common.onnx.building import GraphBuilder, find_products
from dq_toolchain.backends.common.onnx.parts import as_artifact, export_part, sites_of
from dq_toolchain.backends.common.onnx.reading import as_graph_has
from dq_toolchain.backends.common.onnx.tables import put_tables
from dq_toolchain.backends.qnn.graph.norms import rewrite_norms
from dq_toolchain.backends.qnn.graph.paddings import rewrite_paddings
from dq_toolchain.backends.qnn.graph.permutations import turn_permutations
from dq_toolchain.backends.qnn.graph.rewrite import EXPORTED, OPSET, Rewriter
from dq_toolchain.backends.qnn.graph.sigmoids import rewrite_sigmoids
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.parts.part import Part

BITS = 16


def in_integers(part: Part) -> Artifact:
    """The part in the terms of networks: input and result of every layer are quantized."""
    layers = [name for name in part.layers if name not in part.tables]
    sites = (site for end in ("input", "output") for site in sites_of(part, layers, end, BITS, "affine"))
    return as_artifact(part, tuple(sites))


def integer_graph(part: Part, artifact: Artifact) -> Any:
    """The onnx_ir model of ``in_integers``. Raises BackendError: torch cannot export it, or a layer is not in the graph."""
    rewriter = Rewriter(export_part(part, "fp32", EXPORTED), artifact)
    put_tables(rewriter, part)
    return rewriter.run()


def float_graph(part: Part, artifact: Artifact) -> Any:
    """The onnx_ir model of a part whose layers have the weights that its integers stand for; tables stay integers.

    Raises:
        BackendError: see ``integer_graph``.
    """
    builder = GraphBuilder(export_part(part, "fp32", EXPORTED))
    put_tables(builder, part)
    for product in find_products(builder.graph, artifact):
        node, layer = product.node, product.layer
        node.name = layer
        weight = as_graph_has(node, artifact.layers[layer].dequantized()).contiguous()
        node.replace_input_with(1, builder.constant(f"{layer}.weight", weight))
    rewrite_paddings(builder)
    rewrite_sigmoids(builder)
    rewrite_norms(builder)
    turn_permutations(builder)
    builder.model.opset_imports[""] = OPSET
    return builder.finish()
