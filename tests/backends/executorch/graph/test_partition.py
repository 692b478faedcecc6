"""Partitions keep groups whole, can be executed one after the other, and are as few as the unsupported operations allow."""

from __future__ import annotations

import operator
import random

import pytest
from torch.fx import Graph, Node
from torch.fx.passes.utils.fuser_utils import validate_partition

from dq_toolchain.backends.executorch.graph.partition import partitions
from dq_toolchain.toolchain.errors import BackendError


def _random_graph(seed: int, size: int = 60) -> tuple[Graph, list[list[Node]]]:
    """Additions of earlier nodes; three quarters of them supported, some in pairs that feed one another."""
    draw, graph, groups = random.Random(seed), Graph(), list[list[Node]]()
    nodes = [graph.placeholder(f"x{number}") for number in range(3)]
    while len(nodes) < size:
        node = graph.call_function(operator.add, (draw.choice(nodes[-8:]), draw.choice(nodes)))
        nodes.append(node)
        if draw.random() < 0.75:
            groups.append([node])
            if draw.random() < 0.5:
                nodes.append(graph.call_function(operator.neg, (node,)))
                groups[-1].append(nodes[-1])
    graph.output(nodes[-1])
    return graph, groups


def _in_order(graph: Graph, found: list[list[Node]]) -> bool:
    """Whether partitions, each as one operation, have an order in which to execute them: contract and look for a cycle."""
    block = {node: number for number, nodes in enumerate(found) for node in nodes}
    block |= {node: len(found) + number for number, node in enumerate(graph.nodes) if node not in block}
    waiting = {number: set[int]() for number in block.values()}
    for node in graph.nodes:
        waiting[block[node]] |= {block[source] for source in node.all_input_nodes} - {block[node]}
    while ready := {number for number, sources in waiting.items() if not sources}:
        waiting = {number: sources - ready for number, sources in waiting.items() if number not in ready}
    return not waiting


@pytest.mark.parametrize("seed", range(40))
def test_partitions_of_a_random_graph(seed: int) -> None:
    graph, groups = _random_graph(seed)
    found = [list(partition.nodes) for partition in partitions(graph, groups)]
    assert sorted(node.name for nodes in found for node in nodes) == sorted(
        node.name for group in groups for node in group
    )
    assert all(any(set(group) <= set(nodes) for nodes in found) for group in groups)
    assert all(validate_partition(list(nodes)) for nodes in found)
    assert _in_order(graph, found)


def test_one_partition_where_everything_is_supported() -> None:
    graph, _ = _random_graph(1)
    assert len(partitions(graph, [[node] for node in graph.nodes if node.op == "call_function"])) == 1


def test_one_more_for_each_unsupported_stretch() -> None:
    graph, groups = Graph(), list[list[Node]]()
    node = graph.placeholder("x")
    for supported in (True, False, False, True, False, True):
        node = graph.call_function(operator.neg, (node,))
        groups += [[node]] if supported else []
    graph.output(node)
    assert [len(partition.nodes) for partition in partitions(graph, groups)] == [1, 1, 1]


def test_what_is_needed_by_a_later_stretch_only_is_computed_there() -> None:
    graph = Graph()
    x = graph.placeholder("x")
    first, second = graph.call_function(operator.neg, (x,)), graph.call_function(operator.pos, (x,))
    between = graph.call_function(operator.invert, (first,))
    last = graph.call_function(operator.add, (between, second))
    graph.output(last)
    found = [set(partition.nodes) for partition in partitions(graph, [[first], [second], [last]])]
    assert {first} in found
    assert {second, last} in found


def test_a_constant_is_no_reason_to_move_its_group() -> None:
    graph = Graph()
    x, weight = graph.placeholder("x"), graph.placeholder("weight")
    first = graph.call_function(operator.mul, (x, weight))
    between = graph.call_function(operator.neg, (first,))
    last = graph.call_function(operator.mul, (between, weight))
    graph.output(last)
    found = [set(partition.nodes) for partition in partitions(graph, [[first], [last, weight]])]
    assert {first} in found
    assert {last, weight} in found


def test_refuses_a_group_with_an_unsupported_operation_inside() -> None:
    graph = Graph()
    x = graph.placeholder("x")
    first = graph.call_function(operator.neg, (x,))
    last = graph.call_function(operator.neg, (graph.call_function(operator.pos, (first,)),))
    graph.output(last)
    with pytest.raises(BackendError, match="inside one of its patterns"):
        partitions(graph, [[first, last]])
