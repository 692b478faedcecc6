"""Operations of an exported network that do nothing, and that coremltools 9.0 does not take for that."""

from __future__ import annotations

from typing import Any

import torch

ALIAS = torch.ops.aten.alias.default


def without_effect(program: Any) -> Any:
    """Remove aliases from an ExportedProgram, in place: torch makes one of a slice that takes everything."""
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.target == ALIAS:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    program.graph_module.recompile()
    return program
