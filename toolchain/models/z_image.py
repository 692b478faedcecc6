"""Z-Image: picture and caption in one sequence, each padded to a multiple of 32 tokens, positions by rotation.

diffusers' own forward takes lists of pictures and captions of any sizes, and complex numbers. Here the network takes a batch of one
size, as a program on a device does, and cosines and sines; its modules are its own.

Captions of a batch have one length T. A mask tells which tokens are a caption's own: the network puts its learned token in the
place of the others up to the caption's next multiple of 32, looks at none behind it, and lets the picture's positions begin there.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MethodType
from typing import TYPE_CHECKING, Any

from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.models.architecture import (
    TEXT_MASK,
    THOUSAND,
    Architecture,
    Input,
    Keywords,
    Options,
    Packed,
)
from dq_toolchain.toolchain.models.flux import PACK, pack, shifted, unpack
from dq_toolchain.toolchain.models.network_config import whole

if TYPE_CHECKING:
    from torch import Tensor, nn

MULTIPLE = 32
"""Of tokens, to which pictures and captions are padded. Source: diffusers, SEQ_MULTI_OF of transformer_z_image."""
MASKED = -10_000.0
"""Added to the scores of a token that is left out."""
Table = tuple["Tensor", "Tensor"]
"""Cosines and sines."""
STATES, MASK = "encoder_hidden_states", "encoder_attention_mask"


class RotaryAttnProcessor:
    """In the place of diffusers' processor for one sequence: the same rotation in real numbers."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        freqs_cis: Table | Tensor | None = None,
    ) -> Tensor:
        """(B, T, channels) -> the same.

        Args:
            attention_mask: (B, 1, T), added to the scores. freqs_cis: see ``as_table``.
        """
        from diffusers.models.attention_dispatch import dispatch_attention_fn

        assert freqs_cis is not None
        layers = (attn.to_q, attn.to_k, attn.to_v)
        query, key, value = (layer(hidden_states).unflatten(-1, (attn.heads, -1)) for layer in layers)
        query = query if attn.norm_q is None else attn.norm_q(query)
        key = key if attn.norm_k is None else attn.norm_k(key)
        table = as_table(freqs_cis)
        query, key = (_rotated(each, table) for each in (query, key))
        bias = None if attention_mask is None else attention_mask.unsqueeze(1)
        out: Tensor = attn.to_out[0](dispatch_attention_fn(query, key, value, attn_mask=bias).flatten(2, 3))
        return out


def as_table(given: Table | Tensor) -> Table:
    """Cosines and sines of what a block is given: a pair (1, T, channels of a head) for all samples, or, since what is of a sample
    is a tensor with one row for each, both beside each other (B, T, twice the channels)."""
    if isinstance(given, tuple):
        return given
    middle = given.shape[2] // 2
    return given[..., :middle], given[..., middle:]


def _rotated(x: Tensor, table: Table) -> Tensor:
    """(B, T, heads, channels), each pair of channels turned by its token's angle."""
    import torch

    cosines, sines = (each.unsqueeze(2) for each in table)
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-second, first], dim=-1).flatten(3)
    return (x.float() * cosines + turned.float() * sines).to(x.dtype)


def _inputs(config: Options, where: str) -> dict[str, Input]:
    if config["siglip_feat_dim"] is not None:
        raise ModelError(
            f"{where}: siglip_feat_dim is {str(config['siglip_feat_dim'])[:20]}, allowed is null: networks that look at pictures "
            "beside the prompt (Z-Image-Omni) are not supported; take Z-Image or Z-Image-Turbo"
        )
    for key, wanted in (("all_patch_size", PACK), ("all_f_patch_size", 1)):
        if wanted not in (config[key] if isinstance(config[key], list | tuple) else ()):
            raise ModelError(
                f"{where}: {key} is {str(config[key])[:40]}, allowed are lists with {wanted}, which the pipeline takes; correct "
                "it"
            )
    states = {STATES: Input((None, whole(config, "cap_feat_dim", where)))}
    return states | {MASK: TEXT_MASK}


def _fault(side: Mapping[str, Tensor]) -> str | None:
    """Of masks: a caption's own tokens stand first."""
    if MASK not in side:
        return None
    mask = side[MASK]
    whole_numbers = bool(((mask == 0) | (mask == 1)).all())
    if whole_numbers and bool((mask[:, :-1] >= mask[:, 1:]).all()) and bool((mask[:, 0] == 1).all()):
        return None
    return f"{MASK} must be ones, then zeros, at least one 1 per row; put a caption's own tokens first"


def _padded(tokens: int) -> int:
    return -(-tokens // MULTIPLE) * MULTIPLE


def _grid(begin: int, *sides: int) -> Tensor:
    """(product of the sides, 3) whole numbers, the first of them counted from ``begin``."""
    import torch

    axes = [torch.arange(start, start + side) for start, side in zip((begin, 0, 0), sides, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)


def _tables(network: Any, x: Tensor, text: Tensor) -> tuple[Table, Table, Table]:
    """Of the picture's tokens behind the longest caption, of that caption's, both as they are padded: (tokens, channels of a head);
    and of where pictures begin behind captions of 1, 2, ... multiples: (multiples, channels of the first axis)."""
    import torch

    from dq_toolchain.toolchain.models.rotary import turns

    height, width, captions = x.shape[2] // PACK, x.shape[3] // PACK, _padded(text.shape[1])
    filled = torch.zeros(_padded(height * width) - height * width, 3, dtype=torch.int64)
    picture = torch.cat([_grid(captions + 1, 1, height, width), filled])
    starts = torch.cat([_grid(after + 1, 1, 1, 1) for after in range(MULTIPLE, captions + 1, MULTIPLE)])

    def table(ids: Tensor, axes: int | None = None) -> Table:
        return turns(ids.to(x.device), network.axes_dims[:axes], network.rope_theta, torch.float64)

    return table(picture), table(_grid(1, captions, 1, 1)), table(starts, 1)


def _begun(table: Tensor, start: Tensor, count: int) -> Tensor:
    """A picture's table (M, channels), of which ``count`` tokens are its own, begun at ``start`` (B, channels of its first axis):
    (B, M, channels)."""
    import torch

    batch, channels = start.shape
    own = start.unsqueeze(1).expand(batch, count, channels)
    first = torch.cat([own, table[count:, :channels].unsqueeze(0).expand(batch, len(table) - count, channels)], dim=1)
    rest = table[:, channels:].unsqueeze(0)
    return torch.cat([first, rest.expand(batch, *rest.shape[1:])], dim=2)


def _filled(tokens: Tensor, token: Tensor, mask: Tensor | None = None) -> Tensor:
    """(B, T, channels) up to the next multiple, with ``token`` (1, channels) behind and where ``mask`` (B, T) is 0."""
    import torch

    batch, count, width = tokens.shape
    if mask is not None:
        own = mask.to(tokens.dtype).unsqueeze(-1)
        tokens = tokens * own + token * (1 - own)
    more = _padded(count) - count
    return tokens if not more else torch.cat([tokens, token.unsqueeze(0).expand(batch, more, width)], dim=1)


def _forward(
    network: Any,
    sample: Tensor,
    timestep: Tensor,
    encoder_hidden_states: Tensor,
    encoder_attention_mask: Tensor | None = None,
) -> tuple[Tensor]:
    """What stands for diffusers' forward.

    Args:
        sample: (B, C, H, W). timestep: (B,), of the sampler. encoder_hidden_states: (B, T, width).
        encoder_attention_mask: (B, T), 1 for a caption's own tokens.
    Returns:
        The velocity as the scheduler takes it, (B, C, H, W).
    """
    import torch

    channels, count = sample.shape[1], sample.shape[2] * sample.shape[3] // PACK**2
    fixed = getattr(network, "rotary", None)
    picture, captions, starts = (
        _tables(network, sample, encoder_hidden_states) if fixed is None else [t() for t in fixed]
    )
    multiples, unused = len(starts[0]), None
    shared = encoder_attention_mask is None or multiples == 1
    if encoder_attention_mask is None or shared:
        picture = tuple(each.unsqueeze(0) for each in picture)
    else:
        more = multiples * MULTIPLE - encoder_attention_mask.shape[1]
        mask = torch.nn.functional.pad(encoder_attention_mask.to(sample.dtype), (0, more))
        used = mask.reshape(-1, multiples, MULTIPLE)[:, :, 0]  # a caption's first token of each multiple
        last = (used - torch.nn.functional.pad(used[:, 1:], (0, 1))).unsqueeze(2).to(starts[0].dtype)
        picture = tuple(_begun(each, (last * at).sum(1), count) for each, at in zip(picture, starts, strict=True))
        unused = ((1 - used) * MASKED).unsqueeze(2).expand(-1, multiples, MULTIPLE).reshape(-1, 1, multiples * MULTIPLE)
    captions = tuple(each.unsqueeze(0) for each in captions)
    time = network.t_embedder.time_proj((THOUSAND - timestep) / THOUSAND * network.t_scale)
    vector = network.t_embedder.mlp(time.to(sample.dtype))
    name = f"{PACK}-1"
    # a token's channels come last, other than FLUX's
    tokens = pack(sample, PACK).unflatten(2, (channels, PACK**2)).transpose(2, 3).flatten(2)
    x = _filled(network.all_x_embedder[name](tokens), network.x_pad_token)
    turns = picture if shared else torch.cat(picture, dim=2)
    for layer in network.noise_refiner:
        x = layer(x, None, turns, vector)
    text = _filled(network.cap_embedder(encoder_hidden_states), network.cap_pad_token, encoder_attention_mask)
    for layer in network.context_refiner:
        text = layer(text, unused, captions)
    x = torch.cat([x, text], dim=1)
    behind = (each.expand(len(picture[0]), *each.shape[1:]) for each in captions)
    table = tuple(torch.cat(pair, dim=1) for pair in zip(picture, behind, strict=True))
    turns = table if shared else torch.cat(table, dim=2)
    unused = None if unused is None else torch.nn.functional.pad(unused, (x.shape[1] - unused.shape[2], 0))
    for layer in network.layers:
        x = layer(x, unused, turns, vector)
    final = network.all_final_layer[name]
    normed = final.norm_final(x[:, :count])
    # not normed * (1 + scale): Core AI adds the 1 to a bias, which then is not the calibrated one
    out = final.linear(normed + normed * final.adaLN_modulation(vector).unsqueeze(1))
    out = out.unflatten(2, (PACK**2, channels)).transpose(2, 3).flatten(2)
    return (-unpack(out, PACK, sample),)


def _ready(network: Any) -> None:
    """The network takes batches and real numbers from now on."""
    from diffusers.models.embeddings import Timesteps
    from diffusers.models.transformers.transformer_z_image import ZImageTransformerBlock, ZSingleStreamAttnProcessor

    if "forward" in vars(network):
        return
    network.forward = MethodType(_forward, network)
    frequencies = network.t_embedder.frequency_embedding_size
    network.t_embedder.time_proj = Timesteps(frequencies, flip_sin_to_cos=True, downscale_freq_shift=0)
    for block in network.modules():
        if isinstance(block, ZImageTransformerBlock) and isinstance(
            block.attention.processor, ZSingleStreamAttnProcessor
        ):
            block.attention.set_processor(RotaryAttnProcessor())


def _call(network: nn.Module, x: Tensor, timestep: Tensor, keywords: Keywords) -> Tensor:
    _ready(network)
    out: Tensor = network(x, timestep=timestep, **keywords)[0]
    return out


def _fix(network: nn.Module, x: Tensor, keywords: Keywords) -> None:
    from torch import nn

    from dq_toolchain.toolchain.models.rotary import FixedRotary

    _ready(network)
    if not hasattr(network, "rotary"):
        network.rotary = nn.ModuleList([FixedRotary(*table) for table in _tables(network, x, keywords[STATES])])


def _timesteps(steps: int, tokens: int, scheduler: Options) -> dict[str, Any]:
    """Source: diffusers, ZImagePipeline."""
    from diffusers.pipelines.z_image.pipeline_z_image import get_default_z_image_sigmas

    return shifted(steps, tokens, scheduler) | {"sigmas": get_default_z_image_sigmas(steps)}


Z_IMAGE = Architecture(
    "transformer", _inputs, fault=_fault,
    guidance_less=1.0,  # its pipeline's pos + w (pos - neg)
    packed=Packed(
        latent=lambda config, where: whole(config, "in_channels", where), side=128, patch=PACK, call=_call, fix=_fix,
        timesteps=_timesteps, ready=_ready, unit=1,
    ),
)  # fmt: skip
