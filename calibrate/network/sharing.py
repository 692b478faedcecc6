"""Copies of a network's modules that share its tensors, or have others in their places: no weight is held twice."""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch import Tensor, nn


def with_shared_tensors(network: nn.Module) -> nn.Module:
    """A copy of the modules whose parameters and buffers are the network's own tensors."""
    return with_tensors(network, lambda tensor: tensor)


def with_tensors(network: nn.Module, tensor_for: Callable[[Tensor], Tensor]) -> nn.Module:
    """A copy of the modules with what ``tensor_for`` gives in the place of each parameter and buffer, none of which is copied."""
    tensors = [*network.parameters(), *network.buffers()]
    return copy.deepcopy(network, {id(tensor): tensor_for(tensor) for tensor in tensors})
