"""Small random pipelines, saved by diffusers' own ``save_pretrained``, with a tokenizer made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTTransformer2DModel,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
    QwenImageTransformer2DModel,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    ZImageTransformer2DModel,
)
from scripts.published.encoders import POOLED, TOKENS, text_config, tokenizer
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from dq_toolchain.toolchain.disk.files import write_tensors

WIDTH = 8
PROMPTS = ("a red fox", "two ships at sea", "snow")


def t5_tokenizer() -> T5Tokenizer:
    """A unigram model of single letters, with T5's special tokens."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("\u2581", -2.0)]
    pieces += [(letter, -3.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=TOKENS)


def t5(width: int = WIDTH) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=30,
            d_model=width,
            d_kv=4,
            d_ff=16,
            num_layers=2,
            num_heads=2,
            feed_forward_proj="gated-gelu",
            relative_attention_num_buckets=8,
            relative_attention_max_distance=8,
        )
    )


def vae(**changes: Any) -> AutoencoderKL:
    return AutoencoderKL(block_out_channels=(8,), down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",),
                         latent_channels=4, norm_num_groups=4, sample_size=8, **changes)  # fmt: skip


def unet(**changes: Any) -> UNet2DConditionModel:
    """Stable Diffusion's topology, small."""
    settings = {
        "sample_size": 8, "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 8, "attention_head_dim": 2,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": WIDTH,
    }  # fmt: skip
    return UNet2DConditionModel(**(settings | changes))


def save_sd(folder: Path, **changes: Any) -> Path:
    """Stable Diffusion 1.5's parts; ``prediction_type`` v_prediction makes it 2.1's."""
    torch.manual_seed(0)
    prediction = changes.pop("prediction_type", "epsilon")
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
    )
    StableDiffusionPipeline(
        vae=vae(), text_encoder=CLIPTextModel(text_config(WIDTH)), tokenizer=tokenizer(), unet=unet(**changes), scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save_lcm(folder: Path) -> Path:
    """A latent consistency model: told its guidance, sampled in a few steps with noise."""
    torch.manual_seed(1)
    LatentConsistencyModelPipeline(
        vae=vae(), text_encoder=CLIPTextModel(text_config(WIDTH)), tokenizer=tokenizer(), unet=unet(time_cond_proj_dim=10),
        scheduler=LCMScheduler(clip_sample=False), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save_sdxl(folder: Path) -> Path:
    """SDXL's topology: two encoders, linear projections, two transformer layers, pooled text and sizes as added conditions."""
    torch.manual_seed(2)
    network = unet(
        cross_attention_dim=2 * WIDTH,
        use_linear_projection=True,
        transformer_layers_per_block=(1, 2),
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=POOLED + 6 * 4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(text_config(WIDTH)),
        text_encoder_2=CLIPTextModelWithProjection(text_config(WIDTH)),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=network,
        scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1),
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder


def dit() -> DiTTransformer2DModel:
    """Class-conditional, predicts a variance too."""
    return DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=10,
    )


def pixart() -> PixArtTransformer2DModel:
    return PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=8,
        patch_size=2,
        cross_attention_dim=16,
        caption_channels=WIDTH,
    )


def sd3() -> SD3Transformer2DModel:
    return SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        caption_projection_dim=16,
        pooled_projection_dim=POOLED,
        pos_embed_max_size=8,
    )


def flux(**changes: Any) -> FluxTransformer2DModel:
    """Both kinds of blocks, positions by rotation; latents (4, 8, 8), four of them a token."""
    settings = {
        "in_channels": 16, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 8, "num_attention_heads": 2,
        "joint_attention_dim": WIDTH, "pooled_projection_dim": POOLED, "axes_dims_rope": (2, 2, 4),
    }  # fmt: skip
    return FluxTransformer2DModel(**(settings | changes))


def flux2(**changes: Any) -> Flux2Transformer2DModel:
    """FLUX.2-klein's topology; latents (16, 4, 4), each a token."""
    settings = {
        "in_channels": 16, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 8, "num_attention_heads": 2,
        "joint_attention_dim": WIDTH, "timestep_guidance_channels": 16, "axes_dims_rope": (2, 2, 2, 2), "guidance_embeds": False,
    }  # fmt: skip
    return Flux2Transformer2DModel(**(settings | changes))


def sana(**changes: Any) -> SanaTransformer2DModel:
    """Linear attention to the picture, a masked one to text, depthwise convolutions between.

    Heads of 16 channels: where relu leaves nothing of a query, linear attention is 0 / 0, and a rounding decides.
    """
    settings = {
        "in_channels": 4, "out_channels": 4, "num_layers": 2, "num_attention_heads": 1, "attention_head_dim": 16,
        "num_cross_attention_heads": 2, "cross_attention_head_dim": 8, "cross_attention_dim": 16, "caption_channels": WIDTH,
        "sample_size": 8,
    }  # fmt: skip
    return SanaTransformer2DModel(**(settings | changes))


def save_sd3(folder: Path) -> Path:
    """SD3's topology: two CLIP encoders, whose states stand beside each other, and T5's behind them."""
    torch.manual_seed(4)
    network = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=3 * WIDTH,
        caption_projection_dim=16,
        pooled_projection_dim=2 * POOLED,
        pos_embed_max_size=8,
    )
    StableDiffusion3Pipeline(
        transformer=network,
        vae=vae(shift_factor=0.1),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=CLIPTextModelWithProjection(text_config(WIDTH)),
        text_encoder_2=CLIPTextModelWithProjection(text_config(WIDTH)),
        text_encoder_3=t5(3 * WIDTH),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        tokenizer_3=t5_tokenizer(),
    ).save_pretrained(folder)
    return folder


def save_pixart(folder: Path) -> Path:
    """PixArt's pipeline: T5's states with their mask."""
    torch.manual_seed(5)
    PixArtAlphaPipeline(
        transformer=pixart(),
        vae=vae(),
        scheduler=DDIMScheduler(clip_sample=False),
        text_encoder=t5(),
        tokenizer=t5_tokenizer(),
    ).save_pretrained(folder)
    return folder


def save_flux(folder: Path) -> Path:
    """FLUX.1 schnell's pipeline: CLIP's pooled text, T5's states, no embedding of guidance."""
    torch.manual_seed(6)
    FluxPipeline(
        transformer=flux(guidance_embeds=False), vae=vae(shift_factor=0.1), scheduler=FlowMatchEulerDiscreteScheduler(),
        text_encoder=CLIPTextModel(text_config(POOLED)), tokenizer=tokenizer(), text_encoder_2=t5(), tokenizer_2=t5_tokenizer(),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save_transformer(network: torch.nn.Module, folder: Path) -> Path:
    """A bare transformer, a scheduler beside it, and conditioning made elsewhere (``conditioning.safetensors``)."""
    torch.manual_seed(3)
    flows = (SanaTransformer2DModel, SD3Transformer2DModel, FluxTransformer2DModel, Flux2Transformer2DModel,
             ZImageTransformer2DModel, QwenImageTransformer2DModel)  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler() if isinstance(network, flows) else DDIMScheduler(clip_sample=False)
    network.save_pretrained(folder / "transformer")  # type: ignore[operator]
    scheduler.save_pretrained(folder / "scheduler")
    file = folder / "transformer" / "config.json"
    if isinstance(network, flows[2:]):
        size = 4 if isinstance(network, Flux2Transformer2DModel) else 8
        file.write_text(json.dumps(json.loads(file.read_text()) | {"sample_size": size}))
    tokens = 40 if isinstance(network, ZImageTransformer2DModel) else TOKENS  # two of its multiples
    states, pooled = torch.randn(3, tokens, WIDTH), torch.randn(3, POOLED)
    tensors = {"encoder_hidden_states": states} | (
        {"pooled_projections": pooled} if isinstance(network, flows[1:3]) else {}
    )
    if not isinstance(network, DiTTransformer2DModel):
        both = {
            f"{side}.{name}": value * (side == "cond") for name, value in tensors.items() for side in ("cond", "uncond")
        }
        if not isinstance(network, flows[1:4]):
            lengths = torch.tensor([[tokens], [5], [3]])
            mask = (torch.arange(tokens) < lengths).float()
            both |= {
                "cond.encoder_attention_mask": mask,
                "uncond.encoder_attention_mask": mask[2:].expand(3, -1).contiguous(),
            }
        write_tensors(folder / "conditioning.safetensors", both)
    return folder
