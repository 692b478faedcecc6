"""Operations of an exported network that do nothing, and that coreai-torch 0.4.3 does not take for that."""

from __future__ import annotations

from typing import Any

import torch

SQUEEZES = (torch.ops.aten.squeeze.dim, torch.ops.aten.squeeze.dims)


def without_effect(program: Any) -> Any:
    """Remove squeezes of axes longer than one from an ExportedProgram, in place: torch leaves such axes, Core AI refuses."""
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.target in SQUEEZES and node.meta["val"].shape == node.args[0].meta["val"].shape:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    program.graph_module.recompile()
    return program
