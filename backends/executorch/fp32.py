"""FP32 programs of the same UNet: with the rewrites, and by the stock recipe, for comparison of speed."""

from __future__ import annotations

import copy

from torch import nn

from dq_toolchain.backends.common.call import Call
from dq_toolchain.backends.executorch.graph.program import export, lower_methods
from dq_toolchain.backends.executorch.graph.rewrites import rewrite


def lower_fp32(fp32: nn.Module, call: Call, *, rewritten: bool = True) -> bytes:
    """The .pte of a float UNet, method "forward"; ``network`` is left untouched.

    Args:
        call: example inputs, whose shapes become the program's.
        rewritten: False exports diffusers' own graph, as a plain ``to_edge_transform_and_lower`` with XNNPACK does.
    Raises:
        BackendError: executorch refuses the network.
    """
    network = copy.deepcopy(fp32)
    return lower_methods({"forward": export(rewrite(network) if rewritten else network, call, rewritten=rewritten)})
