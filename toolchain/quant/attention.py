"""Attention written as two products whose operands can be quantized one by one.

Same result as diffusers' AttnProcessor2_0 for the attention blocks of UNet2DModel and UNet2DConditionModel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from torch import Tensor, nn

from dq_toolchain.toolchain.errors import ModelError

PRODUCT_OPERANDS: Mapping[str, tuple[str, str]] = {"scores": ("q", "k"), "values": ("probs", "v")}
"""The two products of an attention block in order of execution: name -> (left, right) operand, as sites call them."""
RIGHT_OPERAND = dict(PRODUCT_OPERANDS.values())
"""Left operand of a product -> its right one."""
ATTENTION_OPERANDS = ("q", "k", "v", "probs")
"""All of them in the order of an artifact's sites."""

PLAIN = (AttnProcessor, AttnProcessor2_0)
"""diffusers' processors for softmax(q k^T / sqrt(d)) v, which is taken apart here; others compute something else."""

Product = Callable[[Attention, str, Tensor, Tensor], Tensor]
"""(attention, a key of ``PRODUCT_OPERANDS``, left (B*heads, T, a), right (B*heads, a, U)) -> left @ right."""


def float_product(attention: Attention, which: str, left: Tensor, right: Tensor) -> Tensor:
    return torch.bmm(left, right)


class ProductAttnProcessor:
    """A diffusers attention processor that calls ``product`` for q @ k^T and probs @ v."""

    def __init__(self, product: Product = float_product) -> None:
        self.product = product

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        extras = (attention_mask, attn.spatial_norm, attn.norm_q, attn.norm_k, attn.added_kv_proj_dim)
        if any(extra is not None for extra in extras):
            raise ModelError(
                "this UNet's attention has a mask, a norm of queries and keys, a spatial norm or added key and value "
                'projections, which have no integer form here; set [quantize] attention = "float"'
            )
        residual, shape = hidden_states, hidden_states.shape
        x = hidden_states.flatten(2).transpose(1, 2) if len(shape) == 4 else hidden_states
        if attn.group_norm is not None:
            x = attn.group_norm(x.transpose(1, 2)).transpose(1, 2)
        context = x if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and attn.norm_cross:
            context = attn.norm_encoder_hidden_states(encoder_hidden_states)
        query, key, value = (attn.head_to_batch_dim(t) for t in (attn.to_q(x), attn.to_k(context), attn.to_v(context)))
        scores = self.product(attn, "scores", query, key.transpose(1, 2)) * attn.scale
        out = self.product(attn, "values", scores.softmax(dim=-1), value)
        out = attn.to_out[1](attn.to_out[0](attn.batch_to_head_dim(out)))
        if len(shape) == 4:
            out = out.transpose(1, 2).reshape(shape)
        if attn.residual_connection:
            out = out + residual
        result: Tensor = out / attn.rescale_output_factor
        return result


def check_products(network: nn.Module) -> None:
    """Raise ModelError for the first attention that is not two products around a softmax."""
    for name, attention in network.named_modules():
        if isinstance(attention, Attention) and not isinstance(attention.processor, PLAIN):
            raise ModelError(
                f"{name} computes another attention ({type(attention.processor).__name__}), whose products have no integer form "
                'here; set [quantize] attention = "float"'
            )
