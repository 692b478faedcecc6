"""Attention of diffusers as products that XNNPACK takes: bmm, softmax, bmm.

Heads are moved by permutes, and the scale is a constant that is given to the queries, of which there are far fewer than scores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.attention_processor import (
    Attention,
    JointAttnProcessor2_0,
    SanaLinearAttnProcessor2_0,
)
from diffusers.models.transformers.sana_transformer import SanaAttnProcessor2_0
from diffusers.models.transformers.transformer_qwenimage import QwenDoubleStreamAttnProcessor2_0
from diffusers.models.transformers.transformer_z_image import ZSingleStreamAttnProcessor
from torch import Tensor

from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.models.qwen_image import JointRotaryAttnProcessor
from dq_toolchain.toolchain.models.z_image import RotaryAttnProcessor, as_table
from dq_toolchain.toolchain.quant.attention import PLAIN

SMALLEST = 1e-15
"""Of the denominator of linear attention, as in diffusers."""


class DelegatedAttention:
    """In the place of diffusers' processors for one sequence, or one that looks at another.

    Args:
        whole: queries and keys are normalized before they are cut into heads (SANA).
    """

    def __init__(self, *, whole: bool = False) -> None:
        self.whole = whole

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        x, residual, shape = hidden_states, hidden_states, hidden_states.shape
        if attn.group_norm is not None:
            x = attn.group_norm(x if len(shape) == 4 else x.permute(0, 2, 1))
            x = x if len(shape) == 4 else x.permute(0, 2, 1)
        if len(shape) == 4:
            x = x.permute(0, 2, 3, 1).reshape(shape[0], shape[2] * shape[3], shape[1])
        context = x if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and attn.norm_cross:
            context = attn.norm_encoder_hidden_states(encoder_hidden_states)
        query, key = attn.to_q(x), attn.to_k(context)
        if self.whole:
            query, key = _normed(attn.norm_q, query), _normed(attn.norm_k, key)
        parts = (query * attn.score_scale, key, attn.to_v(context))
        query, key, value = (_split_heads(part, attn.heads) for part in parts)
        out = attn.to_out[0](_join_heads(_products(query, key, value, attention_mask, attn.heads), attn.heads))
        if len(shape) == 4:
            out = out.reshape(shape[0], shape[2], shape[3], -1).permute(0, 3, 1, 2)
        if attn.residual_connection:
            out = out + residual
        result: Tensor = out if attn.rescale_output_factor == 1 else out / attn.rescale_output_factor
        return result


class DelegatedLinearAttention:
    """In the place of SANA's: relu(q) (relu(k)^T v) / (relu(q) sum relu(k)), whose products do not grow with tokens squared."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key = _normed(attn.norm_q, attn.to_q(hidden_states)), _normed(attn.norm_k, attn.to_k(context))
        parts = (query.relu(), key.relu(), attn.to_v(context))
        query, key, value = (_split_heads(part, attn.heads) for part in parts)
        keys = key.permute(0, 2, 1)
        above, below = torch.bmm(query, torch.bmm(keys, value)), torch.bmm(query, keys.sum(dim=2, keepdim=True))
        out: Tensor = attn.to_out[0](_join_heads(above / (below + SMALLEST), attn.heads))
        return out


class DelegatedJointAttention:
    """In the place of ``JointAttnProcessor2_0`` (SD3): picture and text in one sequence, or, without text, the picture alone."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *_args: Any,
        **_keywords: Any,
    ) -> tuple[Tensor, Tensor] | Tensor:
        query, key, value = _of_picture(attn, hidden_states)
        if encoder_hidden_states is not None:
            both = zip((query, key, value), _of_text(attn, encoder_hidden_states), strict=True)
            query, key, value = (torch.cat(pair, dim=1) for pair in both)
        out = _join_heads(_products(query * attn.score_scale, key, value), attn.heads)
        picture = attn.to_out[0](out[:, : hidden_states.shape[1]])
        if encoder_hidden_states is None:
            alone: Tensor = picture
            return alone
        text = out[:, hidden_states.shape[1] :]
        return picture, text if attn.context_pre_only else attn.to_add_out(text)


class DelegatedRotaryAttention:
    """In the place of FLUX's processors, and of Qwen-Image's: text and picture in one sequence, or one that holds both; positions
    by rotation."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        encoder_hidden_states_mask: None = None,
    ) -> tuple[Tensor, Tensor] | Tensor:
        query, key, value = _of_picture(attn, hidden_states)
        if encoder_hidden_states is not None:
            both = zip(_of_text(attn, encoder_hidden_states), (query, key, value), strict=True)
            query, key, value = (torch.cat(pair, dim=1) for pair in both)
        query, key = (_rotated(each, attn.heads, attn.turn, image_rotary_emb) for each in (query, key))
        out = _join_heads(_products(query * attn.score_scale, key, value, attention_mask, attn.heads), attn.heads)
        if encoder_hidden_states is None:
            alone: Tensor = out if getattr(attn, "pre_only", False) else attn.to_out[0](out)
            return alone
        count = encoder_hidden_states.shape[1]
        return attn.to_out[0](out[:, count:]), attn.to_add_out(out[:, :count])


class DelegatedSingleRotaryAttention(DelegatedRotaryAttention):
    """In the place of Z-Image's, which calls its table by another name."""

    def __call__(  # type: ignore[override]  # diffusers gives a processor what its signature names
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        freqs_cis: tuple[Tensor, Tensor] | Tensor | None = None,
    ) -> Tensor:
        table = None if freqs_cis is None else as_table(freqs_cis)
        out = super().__call__(attn, hidden_states, None, attention_mask, table)
        assert isinstance(out, Tensor)
        return out


class DelegatedParallelAttention:
    """In the place of FLUX.2's processor for attention and feed-forward in one product."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        joined, width = attn.to_qkv_mlp_proj(hidden_states), attn.inner_dim
        parts = (joined[..., index * width : (index + 1) * width] for index in range(3))
        query, key, value = (_split_heads(part, attn.heads) for part in parts)
        query, key = attn.norm_q(query), attn.norm_k(key)
        query, key = (_rotated(each, attn.heads, attn.turn, image_rotary_emb) for each in (query, key))
        out = _join_heads(_products(query * attn.score_scale, key, value), attn.heads)
        middle = 3 * width + attn.mlp_hidden_dim
        gate = joined[..., 3 * width : middle]
        forward = gate * torch.sigmoid(gate) * joined[..., middle:]
        result: Tensor = attn.to_out(torch.cat([out, forward], dim=-1))
        return result


def quarter_turn(channels: int) -> Tensor:
    """(1, channels, channels): x @ it swaps the two numbers of each pair and negates the first, a rotation by 90 degrees."""
    turn, first = torch.zeros(channels, channels), torch.arange(0, channels, 2)
    turn[first + 1, first], turn[first, first + 1] = -1.0, 1.0
    return turn.unsqueeze(0)


def _rotated(x: Tensor, heads: int, turn: Tensor, table: tuple[Tensor, Tensor] | None) -> Tensor:
    """(B * heads, tokens, channels), each pair of channels rotated by its token's angle. ``table``: cosines, sines, (tokens,
    channels) each, or (1 or B, tokens, channels)."""
    if table is None:
        return x
    cosines, sines = (_for_heads(each if each.dim() == 3 else each.unsqueeze(0), heads) for each in table)
    turned = torch.bmm(x.reshape(1, -1, x.shape[2]), turn).reshape(x.shape)
    return x * cosines + turned * sines


def _for_heads(x: Tensor, heads: int) -> Tensor:
    """(B, ...) -> (B * heads, ...); what is for all samples stays."""
    return x if x.shape[0] == 1 else x.repeat_interleave(heads, dim=0)


def _of_picture(attn: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (B * heads, tokens, channels); of a block with one sequence, of all its tokens."""
    query, key, value = (_split_heads(layer(x), attn.heads) for layer in (attn.to_q, attn.to_k, attn.to_v))
    return _normed(attn.norm_q, query), _normed(attn.norm_k, key), value


def _of_text(attn: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    added = (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
    query, key, value = (_split_heads(layer(x), attn.heads) for layer in added)
    return _normed(attn.norm_added_q, query), _normed(attn.norm_added_k, key), value


def _normed(norm: Any, x: Tensor) -> Tensor:
    out: Tensor = x if norm is None else norm(x)
    return out


def _products(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None, heads: int = 1) -> Tensor:
    """(B * heads, tokens, channels) each; the queries are scaled already.

    Args:
        bias: (B, 1 or queries, keys), added to the scores: what a mask of tokens became.
    """
    scores = torch.bmm(query, key.permute(0, 2, 1))
    if bias is not None:
        scores = scores + _for_heads(bias, heads)
    return torch.bmm(torch.softmax(scores, dim=-1), value)


def _split_heads(x: Tensor, heads: int) -> Tensor:
    batch, tokens, channels = x.shape
    x = x.reshape(batch, tokens, heads, channels // heads).permute(0, 2, 1, 3)
    return x.reshape(batch * heads, tokens, channels // heads)


def _join_heads(x: Tensor, heads: int) -> Tensor:
    rows, tokens, channels = x.shape
    x = x.reshape(rows // heads, heads, tokens, channels).permute(0, 2, 1, 3)
    return x.reshape(rows // heads, tokens, heads * channels)


def delegated(name: str, attn: Attention) -> Any:
    """The processor that computes what the attention's own does. Raises BackendError: there is none."""
    kind = next((made for classes, made in KINDS if isinstance(attn.processor, classes)), None)
    fields = (
        ("spatial_norm", "norm_q", "norm_k", "add_k_proj") if isinstance(attn.processor, PLAIN) else ("spatial_norm",)
    )
    if kind is None:
        raise BackendError(
            f"{name}: attention by {type(attn.processor).__name__} is not computed by target 'executorch'; export for another "
            "target"
        )
    for field in fields:
        if getattr(attn, field, None) is not None:
            raise BackendError(
                f"{name}: attention with {field} is not supported by target 'executorch'; use a network without it"
            )
    return kind()


KINDS: tuple[tuple[tuple[type, ...], Callable[[], Any]], ...] = (
    (PLAIN, DelegatedAttention),
    ((JointAttnProcessor2_0,), DelegatedJointAttention),
    ((SanaLinearAttnProcessor2_0,), DelegatedLinearAttention),
    ((SanaAttnProcessor2_0,), lambda: DelegatedAttention(whole=True)),
    ((JointRotaryAttnProcessor, QwenDoubleStreamAttnProcessor2_0), DelegatedRotaryAttention),
    ((RotaryAttnProcessor, ZSingleStreamAttnProcessor), DelegatedSingleRotaryAttention),
)
