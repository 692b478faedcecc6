"""FLUX and FLUX.2: tokens of 2x2 latents, picture and text in one sequence, positions by rotation.

Both are called as diffusers' pipelines call them: the time from 0 to 1, positions of a grid for the picture, none (FLUX) or a
count (FLUX.2) for the text. FLUX packs 2x2 latents into a token; FLUX.2's latents are packed
already, since its sampler and its autoencoder's normalization take them so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.models.architecture import Architecture, Input, Keywords, Options, Packed
from dq_toolchain.toolchain.models.network_config import whole

if TYPE_CHECKING:
    from torch import Tensor, nn

PACK = 2
"""Latents per token of FLUX, per side."""
GUIDANCE = "guidance"


def pack(x: Tensor, side: int) -> Tensor:
    """(B, C, H, W) -> tokens (B, H/side * W/side, C * side * side), a token's channels in the order c, row, column.

    Never more than five axes, which is what Core ML takes.
    """
    batch, channels, height, width = x.shape
    if side > 1:
        height, width = height // side, width // side
        planes = x.reshape(batch * channels, height, side, width, side)
        x = planes.permute(0, 2, 4, 1, 3).reshape(batch, channels * side * side, height, width)
    return x.flatten(2).transpose(1, 2)


def unpack(tokens: Tensor, side: int, like: Tensor) -> Tensor:
    """The inverse of ``pack``; ``like``: (B, C, H, W)."""
    batch, channels, height, width = like.shape
    x = tokens.transpose(1, 2)
    if side > 1:
        planes = x.reshape(batch * channels, side, side, height // side, width // side)
        x = planes.permute(0, 3, 1, 4, 2)
    return x.reshape(batch, channels, height, width)


def _guidance(config: Options) -> dict[str, Input]:
    return {GUIDANCE: Input(())} if config["guidance_embeds"] else {}


def _inputs(config: Options, where: str) -> dict[str, Input]:
    states = {"encoder_hidden_states": Input((None, whole(config, "joint_attention_dim", where)))}
    return states | {"pooled_projections": Input((whole(config, "pooled_projection_dim", where),))} | _guidance(config)


def _inputs_2(config: Options, where: str) -> dict[str, Input]:
    return {"encoder_hidden_states": Input((None, whole(config, "joint_attention_dim", where)))} | _guidance(config)


def token_channels(config: Options, where: str) -> int:
    """Channels of a token. Raises ModelError: the network gives another number than it takes (FLUX.1 Fill, Depth, Canny)."""
    taken, given = whole(config, "in_channels", where), config.get("out_channels")
    if given is not None and taken != whole(config, "patch_size", where) ** 2 * whole(config, "out_channels", where):
        raise ModelError(
            f"{where}: in_channels {taken} and out_channels {given} do not belong to the same latents (an inpainting or "
            "image-to-image network has extra inputs, which are not supported); use a text-to-image model"
        )
    return taken


def packed_channels(config: Options, where: str) -> int:
    """Channels of a latent, of which a token has four. Raises ModelError."""
    packed = token_channels(config, where)
    if packed % PACK**2:
        raise ModelError(
            f"{where}: in_channels is {packed}, allowed are multiples of {PACK**2}, the latents of a token; correct it"
        )
    return packed // PACK**2


def _positions(x: Tensor, text: Tensor, side: int) -> dict[str, Tensor]:
    """FLUX: three numbers for each token, zeros for text."""
    import torch

    height, width = x.shape[2] // side, x.shape[3] // side
    rows, columns = torch.meshgrid(
        torch.arange(height, device=x.device), torch.arange(width, device=x.device), indexing="ij"
    )
    picture = torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3)
    return {"img_ids": picture.to(x.dtype), "txt_ids": torch.zeros(text.shape[1], 3, device=x.device, dtype=x.dtype)}


def _positions_2(x: Tensor, text: Tensor, side: int) -> dict[str, Tensor]:
    """FLUX.2: four numbers for each token; of text the last one counts."""
    import torch

    found = _positions(x, text, side)
    picture = torch.nn.functional.pad(found["img_ids"], (0, 1))
    count = torch.arange(text.shape[1], device=x.device, dtype=x.dtype)
    return {"img_ids": picture, "txt_ids": torch.nn.functional.pad(count[:, None], (3, 0))}


class _Call:
    def __init__(self, side: int, positions: Callable[[Tensor, Tensor, int], dict[str, Tensor]]) -> None:
        self.side, self.positions = side, positions

    def __call__(self, network: nn.Module, x: Tensor, time: Tensor, keywords: Keywords) -> Tensor:
        embed: Any = network.pos_embed
        if hasattr(embed, "picture"):
            ids = {"img_ids": embed.picture, "txt_ids": embed.text}
        else:
            ids = self.positions(x, keywords["encoder_hidden_states"], self.side)
        tokens = network(pack(x, self.side), timestep=time, **keywords, **ids, return_dict=False)[0]
        return unpack(tokens, self.side, x)

    def fix(self, network: nn.Module, x: Tensor, keywords: Keywords) -> None:
        from dq_toolchain.toolchain.models.rotary import RotaryTable

        embed: Any = network.pos_embed
        if not isinstance(embed, RotaryTable):
            ids = self.positions(x, keywords["encoder_hidden_states"], self.side)
            network.pos_embed = RotaryTable(embed(ids["img_ids"]), embed(ids["txt_ids"]))


def shifted(steps: int, tokens: int, scheduler: Options) -> dict[str, Any]:
    """FLUX's pipeline: noise levels from 1 to 1/N, shifted by the number of tokens. Source: diffusers, FluxPipeline."""
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    lengths = (scheduler.get("base_image_seq_len", 256), scheduler.get("max_image_seq_len", 4096))
    mu = calculate_shift(tokens, *lengths, scheduler.get("base_shift", 0.5), scheduler.get("max_shift", 1.15))
    return levels(steps, scheduler) | {"mu": float(mu)}


def _shifted_2(steps: int, tokens: int, scheduler: Options) -> dict[str, Any]:
    """FLUX.2's: shifted by tokens and steps. Source: diffusers, ``compute_empirical_mu`` of Flux2Pipeline."""
    from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

    return levels(steps, scheduler) | {"mu": float(compute_empirical_mu(tokens, steps))}


def levels(steps: int, scheduler: Mapping[str, Any]) -> dict[str, Any]:
    import numpy as np

    return {} if scheduler.get("use_flow_sigmas") else {"sigmas": np.linspace(1.0, 1 / steps, steps)}


_ONE, _TWO = _Call(PACK, _positions), _Call(1, _positions_2)
FLUX = Architecture(
    "transformer", _inputs, pooled="pooled_projections", told=GUIDANCE, scale_name="true_cfg_scale",
    packed=Packed(latent=packed_channels, side=128, patch=PACK, call=_ONE, fix=_ONE.fix, timesteps=shifted),
)  # fmt: skip
FLUX_2 = Architecture(
    "transformer", _inputs_2, told=GUIDANCE,
    packed=Packed(
        latent=token_channels, side=64, patch=1, call=_TWO, fix=_TWO.fix,
        timesteps=_shifted_2,
    ),
)  # fmt: skip
