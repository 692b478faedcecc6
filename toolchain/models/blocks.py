"""The blocks of diffusers' networks: what is reconstructed, or run again for its gradient, as one."""

from __future__ import annotations

from diffusers.models.attention import BasicTransformerBlock, JointTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock, FluxTransformerBlock
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformerBlock
from diffusers.models.transformers.transformer_z_image import ZImageTransformerBlock

BLOCKS = (ResnetBlock2D, Attention, BasicTransformerBlock)
"""Units of block reconstruction."""
ALL_BLOCKS = (
    *BLOCKS,
    JointTransformerBlock,
    FluxTransformerBlock,
    FluxSingleTransformerBlock,
    QwenImageTransformerBlock,
    ZImageTransformerBlock,
)
