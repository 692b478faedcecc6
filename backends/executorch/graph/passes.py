"""Passes over an exported graph: what slows XNNPACK down is removed, what its delegate computes wrongly is spelled out."""

from __future__ import annotations

import math

import torch
from torch.export import ExportedProgram
from torch.fx import Node

ATEN = torch.ops.aten
CUBIC = 0.044715
"""Of the tanh form of GELU: Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016, section 2."""


def drop_divisions_by_one(program: ExportedProgram) -> None:
    """Remove ``x / 1.0`` (diffusers' output_scale_factor) from an exported graph, in place: a pass over a picture each."""
    graph = program.graph
    for node in list(graph.nodes):
        divided = node.op == "call_function" and node.target in (ATEN.div.Tensor, ATEN.div.Scalar)
        if divided and node.args[1] == 1 and not any(user.op == "output" for user in node.users):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    program.graph_module.recompile()


def spell_out_tanh_gelu(program: ExportedProgram) -> None:
    """Write ``gelu(x, approximate="tanh")`` as 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), in place.

    The delegate drops ``approximate`` and computes the erf form, which differs by up to 5e-4 (measured with
    executorch 1.4.1 and 1.5.1): enough to flip an int8 value in most calls of a network.
    """
    graph = program.graph
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target is ATEN.gelu.default and node.kwargs.get("approximate") == "tanh":
            with graph.inserting_before(node):
                node.replace_all_uses_with(_tanh_gelu(node.args[0]))
            graph.erase_node(node)
    program.graph_module.recompile()


def _tanh_gelu(x: Node) -> Node:
    def call(target: torch._ops.OpOverload, *arguments: Node | float) -> Node:
        made: Node = x.graph.call_function(target, arguments)
        values = [argument.meta["val"] if isinstance(argument, Node) else argument for argument in arguments]
        made.meta["val"] = target(*values)
        return made

    cubed = call(ATEN.mul.Tensor, call(ATEN.mul.Tensor, x, x), x)
    inner = call(ATEN.add.Tensor, x, call(ATEN.mul.Tensor, cubed, CUBIC))
    tanh = call(ATEN.tanh.default, call(ATEN.mul.Tensor, inner, math.sqrt(2 / math.pi)))
    return call(ATEN.mul.Tensor, call(ATEN.mul.Tensor, x, 0.5), call(ATEN.add.Tensor, tanh, 1.0))
