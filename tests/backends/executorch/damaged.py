"""Files that were read and then changed: what an audit must refuse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dq_toolchain.backends.executorch.proof.products import products
from dq_toolchain.backends.executorch.proof.pte_file import Graph, Node, PteFile, Value
from dq_toolchain.toolchain.formats.artifact import LayerWeights


def with_values(file: PteFile, changed: Mapping[int, Value]) -> PteFile:
    """The file of one method with other values."""
    (method,) = file.methods
    graphs = tuple(replace(graph, values={**graph.values, **changed}) for graph in method.delegates)
    return replace(file, methods=(replace(method, delegates=graphs),))


def with_node(file: PteFile, old: Node, **fields: object) -> PteFile:
    """The file of one method with other fields of one node, whose result keeps its number."""
    (method,) = file.methods
    new = Node(old.kind, {**old.fields, **fields})
    producer = {**method.delegates[0].producer, old.fields["output_id"]: new}
    graphs = tuple(
        replace(graph, nodes=tuple(new if node is old else node for node in graph.nodes), producer=producer)
        for graph in method.delegates
    )
    return replace(file, methods=(replace(method, delegates=graphs),))


def product_of(file: PteFile, weights: LayerWeights) -> tuple[Graph, Node]:
    """The product that has the scales of a layer."""
    wanted = weights.weight_scale.numpy().tobytes()
    (found,) = (
        (graph, node)
        for graph, node in products(file.methods[0])
        if graph.values[node.fields["filter_id"]].scales == wanted
    )
    return found


def before(graph: Graph, node: Node, kind: str) -> Node:
    """The next node of a kind on the way from the input of ``node`` back to the data."""
    while True:
        source = node.fields.get("input_id", node.fields.get("input1_id"))
        assert isinstance(source, int)
        node = graph.producer[source]
        if node.kind == kind:
            return node


def planted_of(graph: Graph, node: Node) -> tuple[int, Value]:
    """The constant that is planted in the input of a product, and its number."""
    number = before(graph, node, "Concatenate2").fields["input2_id"]
    while number in graph.producer:
        number = graph.producer[number].fields["input_id"]
    return number, graph.values[number]
