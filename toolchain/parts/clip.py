"""CLIP's text encoder as a function of token ids, in operations that every target lowers.

The modules have the names of transformers' ``CLIPTextModel``, so its state dict loads; a test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dq_toolchain.toolchain.parts.attention import FORBIDDEN, attend


class QuickGelu(nn.Module):
    """x * sigmoid(1.702 x) (Radford et al. 2021)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


KEYS = (
    "vocab_size", "max_position_embeddings", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "hidden_act", "layer_norm_eps", "projection_dim",
)  # fmt: skip
"""Of transformers' config, all that the function depends on."""
ACTIVATIONS: Mapping[str, type[nn.Module]] = {"quick_gelu": QuickGelu, "gelu": nn.GELU}


class ClipText(nn.Module):
    """(ids (1, L) int64[, mask (1, L) float32]) -> hidden states (1, L, W)[, the projected state of the end token (1, P)].

    Args:
        config: of transformers' CLIPTextConfig. skip: layers after the one whose states are given; 0 gives them after the final
            norm, as ``last_hidden_state``; 1 without, as ``hidden_states[-2]``.
        pooled: also give ``text_embeds``; the mask then tells where the end token is (1 up to it, 0 behind).
    """

    causal: Tensor

    def __init__(self, config: Mapping[str, Any], skip: int, pooled: bool) -> None:
        super().__init__()
        width, count = int(config["hidden_size"]), int(config["num_hidden_layers"])
        self.embeddings = _Embeddings(int(config["vocab_size"]), int(config["max_position_embeddings"]), width)
        self.encoder = _Layers(config, count if pooled else count - skip)
        self.skip, self.pooled, self.last = skip, pooled, count - skip
        if pooled or skip == 0:
            self.final_layer_norm = nn.LayerNorm(width, eps=float(config["layer_norm_eps"]))
        if pooled:
            self.text_projection = nn.Linear(width, int(config["projection_dim"]), bias=False)
        length = int(config["max_position_embeddings"])
        self.register_buffer("causal", torch.full((length, length), FORBIDDEN).triu(1)[None], persistent=False)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        length = ids.shape[1]
        x, hidden = self.embeddings(ids), None
        for index, layer in enumerate(self.encoder.layers, start=1):
            x = layer(x, self.causal[:, :length, :length])
            if index == self.last and self.skip:
                hidden = x
        if self.pooled or not self.skip:
            x = self.final_layer_norm(x)
        hidden = x if hidden is None else hidden
        if not self.pooled:
            return (hidden,)
        assert mask is not None
        behind = torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], dim=1)
        end = (mask - behind)[:, None]  # 1 at the last token that counts
        return hidden, self.text_projection(torch.bmm(end, x)[:, 0])


class _Embeddings(nn.Module):
    def __init__(self, vocabulary: int, length: int, width: int) -> None:
        super().__init__()
        self.token_embedding, self.position_embedding = nn.Embedding(vocabulary, width), nn.Embedding(length, width)

    def forward(self, ids: Tensor) -> Tensor:
        tokens: Tensor = self.token_embedding(ids)
        return tokens + self.position_embedding.weight[: ids.shape[1]]


class _Layers(nn.Module):
    def __init__(self, config: Mapping[str, Any], count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(config) for _ in range(count))


class _Layer(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, epsilon = int(config["hidden_size"]), float(config["layer_norm_eps"])
        self.self_attn = _Attention(width, int(config["num_attention_heads"]))
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width, eps=epsilon), nn.LayerNorm(width, eps=epsilon)
        self.mlp = _Mlp(width, int(config["intermediate_size"]), str(config["hidden_act"]))

    def forward(self, x: Tensor, causal: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x), causal)
        out: Tensor = x + self.mlp(self.layer_norm2(x))
        return out


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, causal: Tensor) -> Tensor:
        mixed = attend(self.q_proj(x) * self.scale, self.k_proj(x), self.v_proj(x), causal, self.heads)
        out: Tensor = self.out_proj(mixed)
        return out


class _Mlp(nn.Module):
    def __init__(self, width: int, inner: int, activation: str) -> None:
        super().__init__()
        self.fc1, self.fc2, self.act = nn.Linear(width, inner), nn.Linear(inner, width), ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out
