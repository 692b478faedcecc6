"""The temporal block: everything that depends on the timestep (and label) alone, reconstructed as one unit.

TFMQ-DM's Temporal Information Block (Huang et al. 2024): the time-embedding MLP and the projection of
its output in every residual block. Its outputs are few numbers that reach every pixel, and depend on no picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.embeddings import TimestepEmbedding
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from dq_toolchain.calibrate.blocks.units import Unit
from dq_toolchain.calibrate.network.fake_quant import QuantizedLayer
from dq_toolchain.toolchain.errors import CalibrationError
from dq_toolchain.toolchain.models.architectures import call_network
from dq_toolchain.toolchain.quant.hooks import hooks
from dq_toolchain.toolchain.quant.layers import LAYERS

TEMPORAL = "temporal block"
"""Its name as a unit; no module can be called so."""


class _Embedded(Exception):
    """Ends the forward pass at the first residual block, carrying the embedding that it was given."""

    def __init__(self, embedding: Tensor) -> None:
        super().__init__()
        self.embedding = embedding


class TemporalBlock(nn.Module):
    """The part of a network from timestep to the projected embeddings; call it like the network.

    It runs the network's own forward as far as the first residual block, so that class labels and other embeddings are
    added as that UNet adds them.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.blocks = _projecting_blocks(network)

    def forward(self, sample: Tensor, timestep: Tensor, return_dict: bool = False, **keywords: Tensor) -> Tensor:
        """(B, sum of the residual blocks' embedding channels) float32: all projections, in module order."""
        embedding = self._embedding(sample, timestep, keywords)
        return torch.cat([self._projected(block, embedding) for block in self.blocks], dim=1)

    @staticmethod
    def _projected(block: Any, embedding: Tensor) -> Tensor:
        out: Tensor = block.time_emb_proj(embedding if block.skip_time_act else block.nonlinearity(embedding))
        return out

    def _embedding(self, sample: Tensor, timestep: Tensor, keywords: dict[str, Any]) -> Tensor:
        def stop(_block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            raise _Embedded(kwargs["temb"] if "temb" in kwargs else args[1])

        try:
            with hooks(block.register_forward_pre_hook(stop, with_kwargs=True) for block in self.blocks):
                call_network(self.network, sample, timestep, keywords)
        except _Embedded as reached:
            return reached.embedding
        raise CalibrationError("the network never runs a residual block that projects the time embedding")


def temporal_layers(network: nn.Module) -> tuple[str, ...]:
    """Names of the block's layers in module order, in an FP32 UNet or the one inside a QuantizedNetwork; maybe none."""
    roots = [f"{name}." for name, module in network.named_modules() if isinstance(module, TimestepEmbedding)]
    projections = {id(block.time_emb_proj) for block in _projecting_blocks(network)}
    return tuple(
        name
        for name, module in network.named_modules()
        if isinstance(module, (*LAYERS, QuantizedLayer))
        and (id(module) in projections or name.startswith(tuple(roots)))
    )


def check_temporal(network: nn.Module) -> None:
    """Raise CalibrationError: no residual block of the network projects a time embedding."""
    if not _projecting_blocks(network):
        raise CalibrationError(
            f"no residual block of this {type(network).__name__} projects a time embedding, so there is no temporal block to "
            "reconstruct; use a method without it"
        )


def with_temporal_unit(network: nn.Module, units: Sequence[Unit]) -> tuple[Unit, ...]:
    """The same layers in units of which the temporal block is the first; units left empty are dropped.

    Args:
        network: the network inside a QuantizedNetwork.
    Raises:
        CalibrationError: no residual block of the network projects a time embedding.
    """
    check_temporal(network)
    temporal = temporal_layers(network)
    rest = [Unit(unit.name, tuple(layer for layer in unit.layers if layer not in temporal)) for unit in units]
    return (Unit(TEMPORAL, temporal), *(unit for unit in rest if unit.layers))


def _projecting_blocks(network: nn.Module) -> tuple[Any, ...]:
    return tuple(m for m in network.modules() if isinstance(m, ResnetBlock2D) and m.time_emb_proj is not None)
