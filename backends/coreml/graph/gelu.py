"""GELU by a hyperbolic tangent, which coremltools 9.0 converts to the exact one: it loses the keyword of torch.export's node."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dq_toolchain.backends.common.qdq.network import replace


class TanhGelu(nn.Module):
    """Spelled out as coremltools' pass ``fuse_gelu_tanh_approximation`` looks for it: it becomes one operation again."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (0.044715 * torch.pow(x, 3) + x)))


def with_tanh_gelu(network: nn.Module) -> nn.Module:
    """Every nn.GELU that is approximate replaced, in place."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.GELU) and module.approximate == "tanh":
            replace(network, name, TanhGelu())
    return network.eval()
