"""Which nodes of a graph go to XNNPACK together, in a few passes over the graph.

What XNNPACK can take is asked of its own partitioner; only the grouping is ours. The vendor's tries every pair of groups
and keeps every node's transitive users, which for a large network takes longer and more memory than all the rest.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from torch.export import ExportedProgram
from torch.fx import Graph, Node
from torch.fx.passes.infra.partitioner import Partition

from dq_toolchain.toolchain.errors import BackendError


def levels(graph: Graph, groups: Sequence[Sequence[Node]]) -> dict[Node, int]:
    """Node -> its level: how many stretches of unsupported nodes lie behind it, on the longest way to the output.

    A path that leaves a level through an unsupported node comes back on a lower one, so that all supported nodes of a
    level can be executed together. Counted from the output, what prepares a layer's range lies beside that layer.

    Args:
        groups: of supported nodes that must stay together, and so have one level; no node is in two of them.
    Raises:
        BackendError: an unsupported node lies between two nodes of one group.
    """
    group_of = {node: number for number, group in enumerate(groups) for node in group}
    of_group, level = [0] * len(groups), dict[Node, int]()
    for _ in range(len(groups) + 2):
        before = list(of_group)
        for node in reversed(graph.nodes):
            group = group_of.get(node)
            found = max(
                (
                    level[user] + (group is not None and user.op != "output" and user not in group_of)
                    for user in node.users
                ),
                default=0,
            )
            if group is not None:
                # A constant is copied to wherever it is used, so its users need not be on the group's level.
                found = of_group[group] = max(found, of_group[group]) if node.op == "call_function" else of_group[group]
            level[node] = found
        if before == of_group:
            return level
    raise BackendError(
        "executorch cannot lower this network: an operation that XNNPACK lacks lies inside one of its patterns; "
        "report it with the model's config.json"
    )


def partitions(graph: Graph, groups: Sequence[Sequence[Node]]) -> list[Partition]:
    """One partition for each level that has supported nodes; its nodes are in the graph's order."""
    level, members = levels(graph, groups), defaultdict[int, list[Node]](list)
    grouped = {node for group in groups for node in group}
    for node in graph.nodes:
        if node in grouped:
            members[level[node]].append(node)
    return [Partition(id=number, nodes=nodes) for number, nodes in enumerate(members.values())]


@functools.cache
def level_partitioner(xnnpack_partitioner: type[Any]) -> type[Any]:
    """``XnnpackPartitioner`` of executorch with this module's grouping."""

    class LevelPartitioner(xnnpack_partitioner):  # type: ignore[misc]
        def generate_partitions(self, ep: ExportedProgram) -> list[Partition]:
            return partitions(ep.graph, self.get_matched_nodes_from_configs(ep))

    return LevelPartitioner
