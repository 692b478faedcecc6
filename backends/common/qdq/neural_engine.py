"""Transformers in the layout that the Neural Engine computes fastest: (B, C, 1, S), 1x1 convolutions, a product per head.

Source: Apple's ml-stable-diffusion ("split einsum") and its paper on transformers for the Neural Engine. Here linear
layers become convolutions with the same integers, so artifact, audit and simulation stay what they are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU, GELU
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.quant.attention import PLAIN
from dq_toolchain.toolchain.quant.sites import attention_layers

SMALLEST = 2.0**-14
"""Deviations are divided by the largest of them, but by no less than the smallest normal fp16 number."""


def to_channels_first(network: nn.Module) -> None:
    """Rewrite every transformer and attention block in place; names of layers stay.

    Raises:
        BackendError: a block is of a kind that has no such form; the text names it.
    """
    for name, module in list(network.named_modules()):
        if isinstance(module, Transformer2DModel):
            network.set_submodule(name, ChannelsFirstTransformer(name, module))
    for name, attention in attention_layers(network):
        extras = (
            attention.spatial_norm,
            attention.norm_q,
            attention.norm_k,
            attention.added_kv_proj_dim,
            attention.norm_cross,
        )
        if any(extras) or not isinstance(attention.processor, PLAIN):
            raise _unsupported(
                name, "attention with a spatial norm, a norm of operands, added projections or of another kind"
            )
        for layer in ("to_q", "to_k", "to_v"):
            setattr(attention, layer, as_convolution(getattr(attention, layer)))
        attention.to_out[0] = as_convolution(attention.to_out[0])
        attention.set_processor(SplitEinsumProcessor())


def _unsupported(name: str, what: str) -> BackendError:
    return BackendError(
        f"{name} has {what}, which the layout 'neural-engine' does not know; export with --layout plain"
    )


def as_convolution(linear: nn.Linear | nn.Conv2d) -> nn.Conv2d:
    """The 1x1 convolution that does to channels what a linear layer does to features; a convolution is returned as it is."""
    if isinstance(linear, nn.Conv2d):
        return linear
    conv = nn.Conv2d(linear.in_features, linear.out_features, 1, bias=linear.bias is not None)
    conv.weight = nn.Parameter(linear.weight.detach().reshape(conv.weight.shape), requires_grad=False)
    if linear.bias is not None:
        conv.bias = nn.Parameter(linear.bias.detach(), requires_grad=False)
    return conv


class SplitEinsumProcessor:
    """A diffusers attention processor for (B, C, 1, S) or (B, C, H, W); conditioning may be (B, T, C)."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        if attention_mask is not None:
            raise BackendError("attention masks have no form in the layout 'neural-engine'; export with --layout plain")
        x = hidden_states.flatten(2).unsqueeze(2)
        residual = x
        if attn.group_norm is not None:
            x = attn.group_norm(x)
        context = x if encoder_hidden_states is None else encoder_hidden_states
        if context.dim() == 3:
            context = context.transpose(1, 2).unsqueeze(2)
        query, key, value = attn.to_q(x), attn.to_k(context).transpose(1, 3), attn.to_v(context)
        size = query.shape[1] // attn.heads
        heads = []
        for start in range(0, query.shape[1], size):
            end = start + size
            scores = torch.einsum("bchq,bkhc->bkhq", query[:, start:end], key[:, :, :, start:end]) * attn.scale
            heads.append(torch.einsum("bkhq,bchk->bchq", scores.softmax(dim=1), value[:, start:end]))
        out = attn.to_out[1](attn.to_out[0](torch.cat(heads, dim=1)))
        out = out + residual if attn.residual_connection else out
        result: Tensor = (out / attn.rescale_output_factor).reshape(hidden_states.shape)
        return result


class ChannelsFirstNorm(nn.Module):
    """LayerNorm over the channels of (B, C, 1, S), in a form that cannot overflow in fp16."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        largest = centred.abs().amax(1, keepdim=True).clamp(min=SMALLEST)
        scaled = centred / largest
        y = scaled / (scaled.square().mean(1, keepdim=True) + self.eps / largest / largest).sqrt()
        y = y if self.weight is None else y * self.weight.view(-1, 1, 1)
        return y if self.bias is None else y + self.bias.view(-1, 1, 1)


class ChannelsFirstFeedForward(nn.Module):
    """``net.0.proj``, its gate or GELU, ``net.2``: on channels."""

    def __init__(self, name: str, net: nn.ModuleList) -> None:
        super().__init__()
        first = net[0]
        if not isinstance(first, GEGLU | GELU):
            raise _unsupported(name, f"a feed-forward layer with {type(first).__name__}")
        self.gated, self.approximate = isinstance(first, GEGLU), getattr(first, "approximate", "none")
        last = net[2]
        assert isinstance(last, nn.Linear)
        first.proj, net[2] = as_convolution(first.proj), as_convolution(last)
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        x = self.net[0].get_submodule("proj")(x)
        if self.gated:
            x, gate = x.chunk(2, dim=1)
            x = x * F.gelu(gate)
        else:
            x = F.gelu(x, approximate=self.approximate)
        out: Tensor = self.net[2](x)
        return out


class ChannelsFirstBlock(nn.Module):
    """A BasicTransformerBlock with plain layer norms."""

    def __init__(self, name: str, block: BasicTransformerBlock) -> None:
        super().__init__()
        if block.norm_type != "layer_norm" or block.pos_embed is not None or hasattr(block, "fuser"):
            raise _unsupported(name, f"norm type {block.norm_type!r}, a positional embedding or a fuser")
        self.norm1, self.norm3 = ChannelsFirstNorm(block.norm1), ChannelsFirstNorm(block.norm3)
        self.norm2 = None if block.attn2 is None else ChannelsFirstNorm(block.norm2)
        self.attn1, self.attn2 = block.attn1, block.attn2
        self.ff = ChannelsFirstFeedForward(f"{name}.ff", block.ff.net)
        self.only_cross_attention = block.only_cross_attention

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        x = x + self.attn1(self.norm1(x), encoder_hidden_states=context if self.only_cross_attention else None)
        if self.norm2 is not None:
            x = x + self.attn2(self.norm2(x), encoder_hidden_states=context)
        out: Tensor = x + self.ff(self.norm3(x))
        return out


class ChannelsFirstTransformer(nn.Module):
    """A Transformer2DModel over pictures: reshaped once at either end, transposed nowhere."""

    def __init__(self, name: str, transformer: Transformer2DModel) -> None:
        super().__init__()
        if not transformer.is_input_continuous:
            raise _unsupported(name, "an input that is no picture")
        self.norm = transformer.norm
        self.proj_in, self.proj_out = as_convolution(transformer.proj_in), as_convolution(transformer.proj_out)
        self.transformer_blocks = nn.ModuleList(
            ChannelsFirstBlock(f"{name}.transformer_blocks.{i}", block)
            for i, block in enumerate(transformer.transformer_blocks)
        )

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        *_: object,
        attention_mask: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        **__: object,
    ) -> tuple[Tensor]:
        if attention_mask is not None or encoder_attention_mask is not None:
            raise BackendError("attention masks have no form in the layout 'neural-engine'; export with --layout plain")
        x = self.proj_in(self.norm(hidden_states).flatten(2).unsqueeze(2))
        for block in self.transformer_blocks:
            x = block(x, encoder_hidden_states)
        return (self.proj_out(x).reshape(hidden_states.shape) + hidden_states,)
