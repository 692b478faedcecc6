"""Nodes and constants that a rewriter puts into a graph, and the products of the artifact that it finds there."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dq_toolchain.backends.common.onnx.export import PREFIX
from dq_toolchain.backends.common.onnx.libraries import graph_passes, onnx, onnx_ir
from dq_toolchain.backends.common.onnx.reading import PRODUCTS
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.quant.attention import PRODUCT_OPERANDS

SCOPES = "pkg.torch.onnx.name_scopes"
OPERANDS = tuple(PRODUCT_OPERANDS.values())
"""Of the first and the second product of an attention block."""


@dataclass(frozen=True)
class Product:
    """A node that multiplies. ``operands``: of an attention product, as sites call them; else ("input",)."""

    node: Any
    layer: str
    kind: Literal["kept", "layer", "attention"]
    operands: tuple[str, ...] = ("input",)

    @property
    def name(self) -> str:
        """The layer, or the attention product's first site: what the node is called from now on."""
        return f"{self.layer}:{self.operands[0]}" if self.kind == "attention" else self.layer


def layer_of(node: Any) -> str:
    """The module that a node was exported from: layers are found by the scope that torch writes at every node."""
    scopes = ast.literal_eval(node.metadata_props.get(SCOPES, "[]"))
    return str(scopes[-2]).removeprefix(PREFIX) if len(scopes) > 1 else ""


def find_products(graph: Any, artifact: Artifact) -> tuple[Product, ...]:
    """Every product of the artifact in a float graph, in order.

    Raises:
        BackendError: a layer or an attention product of the artifact is not in the graph, or is there twice.
    """
    kept, sites = artifact.float_layers, {site.name for site in artifact.sites}
    seen: Counter[str] = Counter()
    found = []
    for node in graph:
        if node.op_type not in PRODUCTS:
            continue
        layer = layer_of(node)
        if layer in kept:
            found.append(Product(node, layer, "kept"))
        elif layer in artifact.layers:
            found.append(Product(node, layer, "layer"))
        elif f"{layer}:q" in sites and node.op_type == "MatMul":
            found.append(Product(node, layer, "attention", OPERANDS[min(seen[layer], 1)]))
        else:
            continue
        seen[layer] += 1
    expected = dict.fromkeys((*artifact.layers, *kept), 1) | {
        site.layer: 2 for site in artifact.sites if site.kind == "attention"
    }
    wrong = [layer for layer, count in expected.items() if seen[layer] != count]
    if wrong:
        raise BackendError(
            f"{wrong[0]} is {seen[wrong[0]]} times in the exported graph, expected "
            f"{expected[wrong[0]]}; nothing was exported; report it with the model's config.json"
        )
    return tuple(found)


class GraphBuilder:
    """New nodes and constants in a model, which is changed in place. ``float``: onnx_ir's type of what is between products."""

    def __init__(self, model: Any, half: bool = False) -> None:
        self.ir, self.model, self.graph = onnx_ir(), model, model.graph
        self.float = self.ir.DataType.FLOAT16 if half else self.ir.DataType.FLOAT

    def constant(self, name: str, tensor: Tensor | Any) -> Any:
        """The initializer of that name, made of a tensor or of one of onnx_ir's where there is none yet."""
        if name not in self.graph.initializers:
            self.graph.register_initializer(constant(name, tensor))
        return self.graph.initializers[name]

    def node(
        self,
        beside: Any,
        op_type: str,
        inputs: list[Any],
        name: str,
        shape: Any,
        attributes: Mapping[str, int] | None = None,
        dtype: Any = None,
        after: bool = False,
    ) -> Any:
        """The output of a new node in front of another one, or behind it."""
        ir = self.ir
        node = ir.Node(
            "", op_type, inputs, [ir.Attr(k, ir.AttributeType.INT, v) for k, v in (attributes or {}).items()], name=name
        )
        out = node.outputs[0]
        out.name, out.shape, out.type = name, ir.Shape(shape), ir.TensorType(dtype or self.float)
        (self.graph.insert_after if after else self.graph.insert_before)(beside, [node])
        return out

    def instead(self, out: Any, users: Sequence[tuple[Any, int]], last: Any, renamed: str) -> None:
        """Let these users of ``out``, and the graph's output if it is that, read ``last``; ``out`` then is ``renamed``."""
        for user, index in users:
            user.replace_input_with(index, last)
        for index, value in enumerate(self.graph.outputs):
            if value is out:
                out.name, last.name = renamed, out.name
                self.graph.outputs[index] = last

    def finish(self) -> Any:
        """The model, with nothing in it that is not used, and nothing of where it came from."""
        graph_passes().RemoveUnusedNodesPass()(self.model)
        for name in [name for name, value in self.graph.initializers.items() if not value.uses()]:
            del self.graph.initializers[name]
        for node in self.graph:
            node.metadata_props.clear()
            node.doc_string = None
        for value in self.graph.initializers.values():
            value.metadata_props.clear()
        self.model.metadata_props.clear()
        self.graph.metadata_props.clear()
        return self.model


def constant(name: str, tensor: Tensor | Any) -> Any:
    """An initializer."""
    ir, value = onnx_ir(), tensor
    if isinstance(tensor, torch.Tensor):
        array = np.ascontiguousarray(tensor.numpy())
        value = ir.tensor(array.reshape(tuple(tensor.shape)), name=name)
    return ir.Value(name=name, const_value=value, shape=ir.Shape(value.shape), type=ir.TensorType(value.dtype))


def check_model(path: Path) -> None:
    """Raise BackendError for a saved graph that ONNX's own checker refuses."""
    try:
        onnx().checker.check_model(str(path), full_check=True)
    except Exception as error:  # the checker's own kinds have no common base
        raise BackendError(
            f"the exported graph is not valid ONNX: {' '.join(str(error).split())[:300]}; nothing was "
            f"exported; report it with the model's config.json"
        ) from error
