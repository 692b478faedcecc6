"""T5's encoder as a function of token ids, in operations that every target lowers.

The modules have the names of transformers' ``T5EncoderModel.encoder``, so its state dict loads; a test holds the two equal.
The position bias depends on the length only, so it is a table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dq_toolchain.toolchain.parts.attention import FORBIDDEN, attend

BIAS = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
"""In the state dict: (buckets, heads), from which ``position_table`` is made."""
KEYS = (
    "vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads", "feed_forward_proj", "layer_norm_epsilon",
    "relative_attention_max_distance",
)  # fmt: skip
"""Of transformers' config, all that the function depends on."""
GATED = {"gated-gelu": "gelu_new", "gated-silu": "silu"}
ACTIVATIONS: Mapping[str, Any] = {
    "gelu_new": lambda: nn.GELU(approximate="tanh"), "gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU,
}  # fmt: skip


class T5Text(nn.Module):
    """(ids (1, L) int64[, mask (1, L) float32]) -> hidden states (1, L, W).

    Args:
        config: of transformers' T5Config. length: L.
        masked: attention does not see tokens whose mask is 0.
    """

    position_table: Tensor

    def __init__(self, config: Mapping[str, Any], length: int, masked: bool) -> None:
        super().__init__()
        self.masked = masked
        width, self.heads = int(config["d_model"]), int(config["num_heads"])
        self.shared = nn.Embedding(int(config["vocab_size"]), width)
        self.block = nn.ModuleList(_Block(config) for _ in range(int(config["num_layers"])))
        self.final_layer_norm = RmsNorm(width, float(config["layer_norm_epsilon"]))
        self.register_parameter(
            "position_table", nn.Parameter(torch.zeros(self.heads, length, length), requires_grad=False)
        )

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        x, bias = self.shared(ids), self.position_table
        if self.masked:
            assert mask is not None
            bias = bias + (1.0 - mask)[:, None] * FORBIDDEN
        for block in self.block:
            x = block(x, bias)
        return (self.final_layer_norm(x),)


class RmsNorm(nn.Module):
    """x / sqrt(mean(x^2) + epsilon) * weight, over the last axis."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight, self.epsilon = nn.Parameter(torch.ones(width)), epsilon

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt((x * x).mean(-1, keepdim=True) + self.epsilon))


class _Block(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.layer = nn.ModuleList([_SelfAttention(config), _FeedForward(config)])

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        out: Tensor = self.layer[1](self.layer[0](x, bias))
        return out


class _SelfAttention(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, self.heads = int(config["d_model"]), int(config["num_heads"])
        inner = self.heads * int(config["d_kv"])
        self.SelfAttention = nn.ModuleDict({name: nn.Linear(width, inner, bias=False) for name in ("q", "k", "v")})
        self.SelfAttention["o"] = nn.Linear(inner, width, bias=False)
        self.layer_norm = RmsNorm(width, float(config["layer_norm_epsilon"]))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        normed, parts = self.layer_norm(x), self.SelfAttention
        mixed = attend(parts["q"](normed), parts["k"](normed), parts["v"](normed), bias, self.heads)
        out: Tensor = x + parts["o"](mixed)
        return out


class _FeedForward(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, inner, name = int(config["d_model"]), int(config["d_ff"]), str(config["feed_forward_proj"])
        self.gated = name.startswith("gated-")
        names = ("wi_0", "wi_1") if self.gated else ("wi",)
        self.DenseReluDense = nn.ModuleDict({each: nn.Linear(width, inner, bias=False) for each in names})
        self.DenseReluDense["wo"] = nn.Linear(inner, width, bias=False)
        self.act = ACTIVATIONS[GATED.get(name, name)]()
        self.layer_norm = RmsNorm(width, float(config["layer_norm_epsilon"]))

    def forward(self, x: Tensor) -> Tensor:
        normed, parts = self.layer_norm(x), self.DenseReluDense
        inner = self.act(parts["wi_0" if self.gated else "wi"](normed))
        inner = inner * parts["wi_1"](normed) if self.gated else inner
        out: Tensor = x + parts["wo"](inner)
        return out


def position_table(weight: Tensor, length: int, most: int) -> Tensor:
    """The bias of each head for each pair of positions: (heads, L, L), from (buckets, heads).

    Half of the buckets are for positions behind; of each half, one half is for single distances and the other for ranges that grow
    up to ``most`` (Raffel et al. 2020, section 2.1; rounding as in transformers).
    """
    positions = torch.arange(length)
    distance = positions[None, :] - positions[:, None]
    half = weight.shape[0] // 2
    exact, size = half // 2, distance.abs()
    ranges = torch.log(size.clamp_min(1).float() / exact) / math.log(most / exact) * (half - exact)
    far = (exact + ranges.to(torch.long)).clamp_max(half - 1)
    bucket = torch.where(size < exact, size, far) + half * (distance > 0).to(torch.long)
    return weight[bucket].permute(2, 0, 1).contiguous()
