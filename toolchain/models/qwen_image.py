"""Qwen-Image: tokens of 2x2 latents, picture and text in one sequence, text masked, positions by rotation in real numbers.

Its pipeline rescales what guidance gives to the length of the conditional output, token by token, which no sampler here does: one
conditional call only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.models.architecture import TEXT_MASK, Architecture, Input, Keywords, Options, Packed
from dq_toolchain.toolchain.models.flux import PACK, pack, packed_channels, shifted, unpack
from dq_toolchain.toolchain.models.network_config import whole

if TYPE_CHECKING:
    from torch import Tensor, nn

STATES, MASK = "encoder_hidden_states", "encoder_attention_mask"
OTHERS = {
    "guidance_embeds": "its own pipeline cannot call such a network",
    "zero_cond_t": "it edits pictures, which are not supported as inputs",
    "use_additional_t_cond": "it makes layers of pictures, which is not supported",
    "use_layer3d_rope": "it makes layers of pictures, which is not supported",
}
MASKED = -10_000.0
"""Added to the scores of a token that is left out."""


class JointRotaryAttnProcessor:
    """In the place of diffusers' processor for text and picture: the same rotation in real numbers."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        encoder_hidden_states_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Picture (B, N, channels) and text (B, T, channels) -> the same.

        Args:
            attention_mask: (B, 1, T + N), added to the scores. image_rotary_emb: cosines and sines, (T + N, channels of a head).
        """
        import torch
        from diffusers.models.attention_dispatch import dispatch_attention_fn
        from diffusers.models.embeddings import apply_rotary_emb

        added, count = (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj), encoder_hidden_states.shape[1]
        text = [layer(encoder_hidden_states).unflatten(-1, (attn.heads, -1)) for layer in added]
        picture = [layer(hidden_states).unflatten(-1, (attn.heads, -1)) for layer in (attn.to_q, attn.to_k, attn.to_v)]
        text[:2] = attn.norm_added_q(text[0]), attn.norm_added_k(text[1])
        picture[:2] = attn.norm_q(picture[0]), attn.norm_k(picture[1])
        query, key, value = (torch.cat(pair, dim=1) for pair in zip(text, picture, strict=True))
        query, key = (apply_rotary_emb(each, image_rotary_emb, sequence_dim=1) for each in (query, key))
        bias = None if attention_mask is None else attention_mask.unsqueeze(1)
        out = dispatch_attention_fn(query, key, value, attn_mask=bias).flatten(2, 3)
        return attn.to_out[0](out[:, count:]), attn.to_add_out(out[:, :count])


def _inputs(config: Options, where: str) -> dict[str, Input]:
    for option, why in OTHERS.items():
        if config[option]:
            raise ModelError(
                f"{where}: {option} is {str(config[option])[:20]}, allowed is false: {why}; take Qwen-Image itself"
            )
    states = {STATES: Input((None, whole(config, "joint_attention_dim", where)))}
    return states | {MASK: TEXT_MASK}


def _idle(config: Options) -> tuple[str, ...]:
    """What the last block makes of its text, which nobody reads: 85 million weights of Qwen-Image."""
    last = f"transformer_blocks.{config['num_layers'] - 1}"
    return f"{last}.attn.to_add_out", f"{last}.txt_mlp"


def _ready(network: Any) -> None:
    """The network computes positions in real numbers from now on, and is without what ``_idle`` names."""
    from diffusers.models.transformers.transformer_qwenimage import QwenDoubleStreamAttnProcessor2_0
    from torch import nn

    from dq_toolchain.toolchain.models.rotary import CentredRotary, FixedRotary

    if isinstance(network.pos_embed, CentredRotary | FixedRotary):
        return
    network.pos_embed = CentredRotary(network.pos_embed.axes_dim, network.pos_embed.theta)
    for name in _idle(network.config):
        network.set_submodule(name, nn.Identity())
    for block in network.transformer_blocks:
        if isinstance(block.attn.processor, QwenDoubleStreamAttnProcessor2_0):
            block.attn.set_processor(JointRotaryAttnProcessor())


def _shape(x: Tensor) -> tuple[int, int, int]:
    return 1, x.shape[2] // PACK, x.shape[3] // PACK


def _call(network: nn.Module, x: Tensor, time: Tensor, keywords: Keywords) -> Tensor:
    import torch

    _ready(network)
    tokens, mask = pack(x, PACK), keywords.get(MASK)
    given: dict[str, Any] = {}
    if mask is not None:
        bias = torch.nn.functional.pad((1 - mask.to(x.dtype)) * MASKED, (0, tokens.shape[1])).unsqueeze(1)
        given["attention_kwargs"] = {"attention_mask": bias}
    shapes = [[_shape(x)]] * len(x)
    out = network(
        tokens, timestep=time, encoder_hidden_states=keywords[STATES], img_shapes=shapes, return_dict=False, **given
    )
    return unpack(out[0], PACK, x)


def _fix(network: nn.Module, x: Tensor, keywords: Keywords) -> None:
    from dq_toolchain.toolchain.models.rotary import FixedRotary

    _ready(network)
    embed: Any = network.pos_embed
    if not isinstance(embed, FixedRotary):
        network.pos_embed = FixedRotary(
            *embed([[_shape(x)]], max_txt_seq_len=keywords[STATES].shape[1], device=x.device)
        )


QWEN_IMAGE = Architecture(
    "transformer", _inputs, rescaled=True, scale_name="true_cfg_scale",
    packed=Packed(
        latent=packed_channels, side=128, patch=PACK, call=_call, fix=_fix, timesteps=shifted, ready=_ready, idle=_idle,
    ),
)  # fmt: skip
