"""Activation functions in the form that Apple's guide to the Neural Engine asks for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dq_toolchain.backends.common.qdq.network import replace


class SigmoidSiLU(nn.Module):
    """SiLU as x * sigmoid(x)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


def for_neural_engine(network: nn.Module) -> nn.Module:
    """Every SiLU replaced, in place."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.SiLU):
            replace(network, name, SigmoidSiLU())
    return network.eval()
