"""Configs as published pipelines have them, key by key; only widths and sizes are small.

A layout is what is special about a family on the hub: its classes, options of network and scheduler, encoders, and key names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.published.encoders import POOLED
from scripts.published.old_keys import with_old_attention_keys

Config = Mapping[str, Any]
WIDTH = 16

SD_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000,
            "trained_betas": None}  # fmt: skip
LINEAR = {**SD_BETAS, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
SD_SCHEDULE = {**SD_BETAS, "clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1}
PNDM = {"_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", **SD_SCHEDULE}
EULER = {"_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0.19.0.dev0", **SD_SCHEDULE,
         "interpolation_type": "linear",
         "prediction_type": "epsilon", "sample_max_value": 1.0, "timestep_spacing": "leading",
         "use_karras_sigmas": False}  # fmt: skip
DPM = {"_class_name": "DPMSolverMultistepScheduler", "_diffusers_version": "0.22.0.dev0", "algorithm_type": "dpmsolver++",
       "dynamic_thresholding_ratio": 0.995, "euler_at_final": False, "lambda_min_clipped": -float("inf"),
       "lower_order_final": True, "prediction_type": "epsilon", "sample_max_value": 1.0, "solver_order": 2,
       "solver_type": "midpoint",
       "steps_offset": 0, "thresholding": False, "timestep_spacing": "linspace", "use_karras_sigmas": False,
       "use_lu_lambdas": False, "variance_type": None}  # fmt: skip
FLOW = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "_diffusers_version": "0.29.0.dev0",
    "num_train_timesteps": 1000,
    "shift": 3.0,
}
DYNAMIC = {**FLOW, "base_image_seq_len": 256, "base_shift": 0.5, "max_image_seq_len": 4096, "max_shift": 1.15,
           "shift_terminal": None, "time_shift_type": "exponential", "use_dynamic_shifting": True}  # fmt: skip
LCM = {"_class_name": "LCMScheduler", "_diffusers_version": "0.24.0", **SD_SCHEDULE, "clip_sample_range": 1.0,
       "original_inference_steps": 50, "prediction_type": "epsilon", "timestep_scaling": 10.0,
       "timestep_spacing": "leading"}  # fmt: skip

SD_UNET = {
    "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.12.0.dev0", "act_fn": "silu", "attention_head_dim": 8,
    "block_out_channels": [32, 64, 128, 128], "center_input_sample": False, "cross_attention_dim": WIDTH,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "downsample_padding": 1, "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 4, "layers_per_block": 1,
    "mid_block_scale_factor": 1, "norm_eps": 1e-05, "norm_num_groups": 32, "out_channels": 4, "sample_size": 16,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}  # fmt: skip
SD2_UNET = {**SD_UNET, "attention_head_dim": [1, 2, 4, 4], "dual_cross_attention": False, "use_linear_projection": True,
            "upcast_attention": True, "num_class_embeds": None}  # fmt: skip
XL_UNET = {
    **SD_UNET, "_diffusers_version": "0.19.0.dev0", "addition_embed_type": "text_time", "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": 8, "attention_head_dim": [1, 2, 4], "block_out_channels": [32, 64, 128], "class_embed_type": None,
    "cross_attention_dim": 2 * WIDTH, "encoder_hid_dim": None, "encoder_hid_dim_type": None, "time_cond_proj_dim": None,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"], "num_class_embeds": None,
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], "upcast_attention": None,
    "projection_class_embeddings_input_dim": POOLED + 6 * 8, "transformer_layers_per_block": [1, 1, 2],
    "use_linear_projection": True,
}  # fmt: skip
SD3 = {
    "_class_name": "SD3Transformer2DModel", "_diffusers_version": "0.29.0.dev0", "attention_head_dim": 16,
    "caption_projection_dim": 32, "in_channels": 16, "joint_attention_dim": 2 * WIDTH, "num_attention_heads": 2, "num_layers": 3,
    "out_channels": 16, "patch_size": 2, "pooled_projection_dim": 2 * POOLED, "pos_embed_max_size": 32, "sample_size": 16,
}  # fmt: skip
FLUX = {
    "_class_name": "FluxTransformer2DModel", "_diffusers_version": "0.30.0.dev0", "attention_head_dim": 16,
    "axes_dims_rope": [4, 6, 6], "guidance_embeds": False, "in_channels": 16, "joint_attention_dim": 2 * WIDTH,
    "num_attention_heads": 2, "num_layers": 1, "num_single_layers": 2, "patch_size": 1, "pooled_projection_dim": POOLED,
    "sample_size": 16,
}  # fmt: skip
FLUX_2 = {
    "_class_name": "Flux2Transformer2DModel", "_diffusers_version": "0.37.0.dev0", "attention_head_dim": 16,
    "axes_dims_rope": [4, 4, 4, 4], "eps": 1e-06, "guidance_embeds": False, "in_channels": 16, "joint_attention_dim": 3 * WIDTH,
    "mlp_ratio": 3.0, "num_attention_heads": 2, "num_layers": 1, "num_single_layers": 2, "out_channels": None, "patch_size": 1,
    "rope_theta": 2000, "sample_size": 4, "timestep_guidance_channels": 32,
}  # fmt: skip
SANA = {
    "_class_name": "SanaTransformer2DModel", "_diffusers_version": "0.32.0.dev0", "attention_bias": False,
    "attention_head_dim": 16, "caption_channels": WIDTH, "cross_attention_dim": 32, "cross_attention_head_dim": 16, "dropout": 0.0,
    "in_channels": 8, "mlp_ratio": 2.5, "norm_elementwise_affine": False, "norm_eps": 1e-06, "num_attention_heads": 2,
    "num_cross_attention_heads": 2, "num_layers": 2, "out_channels": 8, "patch_size": 1, "sample_size": 8,
}  # fmt: skip
Z_IMAGE = {
    "_class_name": "ZImageTransformer2DModel", "_diffusers_version": "0.36.0.dev0", "all_f_patch_size": [1], "all_patch_size": [2],
    "axes_dims": [4, 6, 6], "axes_lens": [128, 32, 32], "cap_feat_dim": WIDTH, "dim": 32, "in_channels": 8, "n_heads": 2,
    "n_kv_heads": 2, "n_layers": 2, "n_refiner_layers": 1, "norm_eps": 1e-05, "qk_norm": True, "rope_theta": 256.0,
    "sample_size": 16, "t_scale": 1000.0,
}  # fmt: skip
QWEN_IMAGE = {
    "_class_name": "QwenImageTransformer2DModel", "_diffusers_version": "0.34.0.dev0", "attention_head_dim": 16,
    "axes_dims_rope": [4, 6, 6], "guidance_embeds": False, "in_channels": 16, "joint_attention_dim": 2 * WIDTH,
    "num_attention_heads": 2, "num_layers": 2, "out_channels": 4, "patch_size": 2, "pooled_projection_dim": 768,
    "sample_size": [8, 12],
}  # fmt: skip
PIXART = {
    "_class_name": "Transformer2DModel", "_diffusers_version": "0.22.0.dev0", "activation_fn": "gelu-approximate",
    "attention_bias": True, "attention_head_dim": 16, "attention_type": "default", "caption_channels": WIDTH,
    "cross_attention_dim": 32, "double_self_attention": False, "dropout": 0.0, "in_channels": 4, "norm_elementwise_affine": False,
    "norm_eps": 1e-06, "norm_num_groups": 32, "norm_type": "ada_norm_single", "num_attention_heads": 2, "num_embeds_ada_norm": 1000,
    "num_layers": 2, "num_vector_embeds": None, "only_cross_attention": False, "out_channels": 8, "patch_size": 2,
    "sample_size": 16,
    "upcast_attention": False, "use_linear_projection": False,
}  # fmt: skip
DIT = {**{key: value for key, value in PIXART.items() if key not in ("caption_channels", "attention_type", "double_self_attention",
                                                                      "norm_eps")},
       "_diffusers_version": "0.12.0.dev0", "cross_attention_dim": None, "norm_type": "ada_norm_zero"}  # fmt: skip
PIXELS = {
    "_class_name": "UNet2DModel", "_diffusers_version": "0.0.4", "act_fn": "silu", "attention_head_dim": 8, "add_attention": True,
    "block_out_channels": [32, 32, 64], "center_input_sample": False, "downsample_padding": 0, "flip_sin_to_cos": False,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"], "freq_shift": 1, "in_channels": 3, "layers_per_block": 1,
    "mid_block_scale_factor": 1, "norm_eps": 1e-06, "norm_num_groups": 32, "out_channels": 3, "sample_size": 16,
    "time_embedding_type": "positional", "up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
}  # fmt: skip
NCSNPP = {
    **PIXELS, "attention_head_dim": None, "downsample_padding": 1, "flip_sin_to_cos": True, "freq_shift": 0,
    "norm_num_groups": None,
    "down_block_types": ["SkipDownBlock2D", "AttnSkipDownBlock2D", "SkipDownBlock2D"], "mid_block_scale_factor": 1.41421356237,
    "up_block_types": ["SkipUpBlock2D", "AttnSkipUpBlock2D", "SkipUpBlock2D"], "time_embedding_type": "fourier",
}  # fmt: skip
DDPM = {
    "_class_name": "DDPMScheduler",
    "_diffusers_version": "0.1.1",
    **LINEAR,
    "clip_sample": True,
    "variance_type": "fixed_small",
}
OLD_DDIM = {"_class_name": "DDIMScheduler", "_diffusers_version": "0.0.4", **LINEAR, "clip_sample": False}
CONSISTENCY = {"_class_name": "CMStochasticIterativeScheduler", "_diffusers_version": "0.18.0.dev0", "clip_denoised": True,
               "num_train_timesteps": 40, "rho": 7.0, "s_noise": 1.0, "sigma_data": 0.5, "sigma_max": 80.0,
               "sigma_min": 0.002}  # fmt: skip
EDM = {"_class_name": "EDMDPMSolverMultistepScheduler", "algorithm_type": "dpmsolver++", "dynamic_thresholding_ratio": 0.995,
       "euler_at_final": False, "final_sigmas_type": "zero", "lower_order_final": True, "num_train_timesteps": 1000,
       "prediction_type": "epsilon", "rho": 7.0, "sample_max_value": 1.0, "sigma_data": 0.5, "sigma_max": 80.0, "sigma_min": 0.002,
       "solver_order": 2, "solver_type": "midpoint", "thresholding": False}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """One published family.

    Attributes:
        pipeline: class in ``model_index.json``.
        network, scheduler: their configs. index: further entries of ``model_index.json``.
        encoders: text encoders in order, "clip", "projection" (CLIP with a projection) or "t5".
        after: changes the saved folder.
        settings: further settings of our recipe, by section. guided: whether the network can be guided. scale: of its guidance.
        stored: tokens of two prompts and a negative one whose embeddings are in a file, in the place of encoders.
    """

    pipeline: str
    network: Config
    scheduler: Config
    encoders: tuple[str, ...] = ()
    index: Config = field(default_factory=dict)
    steps: int = 3
    after: Callable[[Path], None] | None = None
    settings: Mapping[str, Config] = field(default_factory=dict)
    guided: bool = True
    scale: float = 7.5
    stored: tuple[int, ...] = ()

    @property
    def part(self) -> str:
        return "transformer" if "Transformer" in self.network["_class_name"] else "unet"

    @property
    def latent_channels(self) -> int:
        channels: int = self.network["in_channels"]
        return channels // 4 if self.network["_class_name"] == "FluxTransformer2DModel" else channels


def sd(scheduler: Config, network: Config = SD_UNET, **options: Any) -> Layout:
    return Layout("StableDiffusionPipeline", network, scheduler, ("clip",), **options)


def xl(scheduler: Config, network: Config = XL_UNET, **options: Any) -> Layout:
    index = {"force_zeros_for_empty_prompt": True, "add_watermarker": None, **options.pop("index", {})}
    return Layout("StableDiffusionXLPipeline", network, scheduler, ("clip", "projection"), index, **options)


def sd3(scheduler: Config = FLOW, network: Config = SD3, **options: Any) -> Layout:
    return Layout("StableDiffusion3Pipeline", network, scheduler, ("projection", "projection", "t5"), **options)


def flux(scheduler: Config, network: Config = FLUX, **options: Any) -> Layout:
    return Layout("FluxPipeline", network, scheduler, ("clip", "t5"), **options)


def unconditional(pipeline: str, scheduler: Config, network: Config = PIXELS, **options: Any) -> Layout:
    return Layout(pipeline, network, scheduler, guided=False, **options)


def named(name: str, *without: str, **options: Any) -> dict[str, Any]:
    """Stable Diffusion's schedule in another scheduler's config."""
    return {"_class_name": name, **{key: value for key, value in SD_SCHEDULE.items() if key not in without}, **options}


NO_CLIP = {"sampler": {"clip": False}}
TINY_SD = {**SD_UNET, "block_out_channels": [32, 64, 128], "mid_block_type": None, "down_block_types": ["CrossAttnDownBlock2D"] * 3,
           "up_block_types": ["CrossAttnUpBlock2D"] * 3}  # fmt: skip
SSD = {**XL_UNET, "layers_per_block": 2, "mid_block_type": "UNetMidBlock2D", "transformer_layers_per_block": [1, [2, 1], [1, 2]],
       "reverse_transformer_layers_per_block": [[1, 2, 1], [2, 1, 1], 1]}  # fmt: skip

LAYOUTS: dict[str, Layout] = {
    "sd15": sd(PNDM, index={"feature_extractor": ["transformers", "CLIPImageProcessor"],
                            "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}),
    "sd14, index of diffusers 0.2": sd(PNDM, index={"_diffusers_version": "0.2.2"}),
    "sd, scheduler of before steps_offset and clip_sample": sd({"_class_name": "DDIMScheduler", **SD_BETAS}),
    "sd21, v prediction": sd({"_class_name": "DDIMScheduler", **SD_SCHEDULE, "prediction_type": "v_prediction"}, SD2_UNET),
    "sd21 base": sd({**PNDM, "prediction_type": "epsilon"}, SD2_UNET),
    "sd turbo": sd({**EULER, "timestep_spacing": "trailing"}, SD2_UNET, steps=1),
    "lcm": Layout("LatentConsistencyModelPipeline", {**SD_UNET, "time_cond_proj_dim": 32}, LCM, ("clip",),
                  {"requires_safety_checker": True}, steps=4),
    "tiny sd": sd({**EULER, "timestep_spacing": "leading"}, TINY_SD),
    "sdxl base": xl(EULER),
    "sdxl turbo": xl({**named("EulerAncestralDiscreteScheduler"), "timestep_spacing": "trailing"}),
    "sdxl, index and scheduler disagree": xl(EULER, index={"scheduler": ["diffusers", "EulerAncestralDiscreteScheduler"]}),
    "sdxl lcm": xl(LCM, {**XL_UNET, "time_cond_proj_dim": 32}, steps=4),
    "ssd 1b": xl(EULER, SSD),
    "playground 2.5": xl(EDM, scale=3.0),  # its card's; float32 rounding alone is 1.1e-5 at 7.5
    "sd3": sd3(),
    "sd35, dual attention": sd3(network={**SD3, "dual_attention_layers": [0], "qk_norm": "rms_norm"}),
    "sd35, dynamic shifting": sd3({**FLOW, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15,
                                   "base_image_seq_len": 256, "max_image_seq_len": 4096}),
    "flux schnell": flux({**FLOW, "shift": 1.0, "use_dynamic_shifting": False, "base_shift": 0.5, "max_shift": 1.15,
                          "base_image_seq_len": 256, "max_image_seq_len": 4096}, steps=4),
    "flux dev": flux({**FLOW, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256,
                      "max_image_seq_len": 4096}, {**FLUX, "guidance_embeds": True}, scale=3.5),
    "flux.2 dev": Layout("Flux2Pipeline", {**FLUX_2, "guidance_embeds": True}, DYNAMIC, stored=(6, 6, 6), scale=4.0),
    "flux.2 klein": Layout("Flux2KleinPipeline", FLUX_2, DYNAMIC, index={"is_distilled": True}, stored=(6, 6, 6), steps=4,
                           scale=4.0),
    "flux.2 klein base": Layout("Flux2KleinPipeline", FLUX_2, DYNAMIC, index={"is_distilled": False}, stored=(6, 6, 6), scale=4.0),
    "sana": Layout("SanaPipeline", SANA, {**DPM, **LINEAR, "final_sigmas_type": "zero", "flow_shift": 3.0,
                                          "prediction_type": "flow_prediction", "use_flow_sigmas": True},
                   stored=(5, 9, 3), scale=4.5),
    "z-image turbo": Layout("ZImagePipeline", Z_IMAGE, {**FLOW, "use_dynamic_shifting": False}, stored=(7, 7, 7), steps=4,
                            scale=4.0),
    "z-image": Layout("ZImagePipeline", {**Z_IMAGE, "sample_size": [8, 12]}, {**FLOW, "shift": 6.0, "use_dynamic_shifting": False},
                      stored=(40, 7, 64), scale=4.0),
    "qwen-image": Layout("QwenImagePipeline", QWEN_IMAGE, {**DYNAMIC, "max_image_seq_len": 8192, "max_shift": 0.9, "shift": 1.0,
                                                           "shift_terminal": 0.02}, stored=(5, 9, 3), guided=False),
    "pixart alpha 512": Layout("PixArtAlphaPipeline", PIXART, {**DPM, **LINEAR}, ("t5",)),
    "pixart alpha 1024": Layout(
        "PixArtAlphaPipeline", {**PIXART, "sample_size": 128, "attention_head_dim": 24, "cross_attention_dim": 48},
        {**DPM, **LINEAR}, ("t5",), steps=2),
    "pixart sigma": Layout("PixArtSigmaPipeline", {**PIXART, "use_additional_conditions": False}, {**DPM, **LINEAR},
                           ("t5",)),
    "dit": Layout("DiTPipeline", DIT, {**OLD_DDIM, "prediction_type": "epsilon"}),
    "ddpm": unconditional("DDPMPipeline", DDPM, settings=NO_CLIP),
    "ddim, scheduler named ddpm": unconditional("DDIMPipeline", {**DDPM, "clip_sample": False}),
    "ldm": unconditional("LDMPipeline", {**OLD_DDIM, "beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear"}),
    "attention keys of before 0.17": unconditional("DDIMPipeline", OLD_DDIM, after=with_old_attention_keys),
    "ncsn++": unconditional("DDIMPipeline", {**OLD_DDIM, "steps_offset": 1}, NCSNPP),  # its network takes the logarithm of time
    "consistency model": unconditional("ConsistencyModelPipeline", CONSISTENCY, settings=NO_CLIP),
    **{f"sd with {label}": sd(config) for label, config in {
        "dpm++ 2m karras": {**DPM, **SD_SCHEDULE, "use_karras_sigmas": True},
        "dpm++ sde": {**DPM, **SD_SCHEDULE, "algorithm_type": "sde-dpmsolver++"},
        "dpm++ single": named("DPMSolverSinglestepScheduler", lambda_min_clipped=-float("inf"), lower_order_final=True),
        "unipc": named("UniPCMultistepScheduler"), "deis": named("DEISMultistepScheduler"), "heun": named("HeunDiscreteScheduler"),
        "euler karras": {**EULER, "use_karras_sigmas": True}, "kdpm2 ancestral": named("KDPM2AncestralDiscreteScheduler"),
        "lms": named("LMSDiscreteScheduler"), "tcd": named("TCDScheduler"),
        "ddim zero snr": named("DDIMScheduler", prediction_type="v_prediction", rescale_betas_zero_snr=True,
                               timestep_spacing="trailing"),
    }.items()},
}  # fmt: skip
