"""GroupNorm in a form that cannot overflow in fp16."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dq_toolchain.backends.common.qdq.network import replace


class LayerNormGroupNorm(nn.Module):
    """GroupNorm as layer_norm over each group: Core ML computes the statistics inside one operation.

    The converter's own form squares in fp16, where deviations above 256 overflow and the group becomes zero.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.groups, self.eps = norm.num_groups, norm.eps
        weight = torch.ones(norm.num_channels) if norm.weight is None else norm.weight.detach()
        bias = torch.zeros(norm.num_channels) if norm.bias is None else norm.bias.detach()
        self.register_buffer("weight", weight.clone())
        self.register_buffer("bias", bias.clone())

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(x.shape[0], self.groups, -1)
        channels = (1, -1, *[1] * (x.dim() - 2))
        normed = F.layer_norm(rows, rows.shape[-1:], eps=self.eps).reshape(x.shape)
        return normed * self.weight.reshape(channels) + self.bias.reshape(channels)


def without_group_norm(network: nn.Module) -> nn.Module:
    """Every GroupNorm replaced, in place; gradients off."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.GroupNorm):
            replace(network, name, LayerNormGroupNorm(module))
    return network.eval().requires_grad_(False)
