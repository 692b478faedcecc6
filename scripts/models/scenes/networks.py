"""The parts of the pipeline, with random weights."""

from __future__ import annotations

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from scripts.models.scenes.world import SIDE

WIDTH, LENGTH, VOCABULARY = 96, 77, 49_408
BEGIN, END = 49_406, 49_407
DOWN = 4
"""Pixels per latent along a side."""


def build_autoencoder() -> AutoencoderKL:
    """0.6 M parameters: 64x64 pixels <-> 16x16 latents of 4 channels."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,  # plain backgrounds: a group of few channels would normalize their colour away
        sample_size=SIDE,
    )


def build_text_encoder(vocabulary: int = VOCABULARY) -> CLIPTextModel:
    """CLIP's topology, 0.23 M parameters beside the embedding of ``vocabulary`` tokens."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=3,
            max_position_embeddings=LENGTH,
            attn_implementation="eager",  # faster backwards at this length
            bos_token_id=BEGIN,
            eos_token_id=END,
            pad_token_id=END,
        )
    )


def build_unet() -> UNet2DConditionModel:
    """4.2 M parameters, 0.13 G multiply-adds; the text is attended to at 8x8 and 4x4."""
    return UNet2DConditionModel(
        sample_size=SIDE // DOWN,
        layers_per_block=1,
        block_out_channels=(48, 96, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=(1, 3, 4),  # heads, of 32 channels each: diffusers' name means the number
        cross_attention_dim=WIDTH,
    )


def build_scheduler() -> DDIMScheduler:
    """Cosine schedule (Nichol and Dhariwal 2021), v (Salimans and Ho 2022), no clipping: it is not linear."""
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        timestep_spacing="trailing",
        steps_offset=1,  # without a part in trailing timesteps; diffusers' pipeline warns of any other
    )
