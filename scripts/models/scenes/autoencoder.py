"""First stage: the autoencoder. L1 distance and a weak pull of the latents towards a normal distribution."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from scripts.models.scenes.checkpoint import Averaged, Checkpoint
from scripts.models.scenes.data import as_float

BATCH, LR, KL_WEIGHT = 16, 2e-3, 1e-4
FIRST_LOGVAR = -5.0
CROP, CROPPED_SHARE = 32, 0.55
"""Parts of pictures at first, four times as cheap: how long, as a share of the time."""
SAVE_EVERY = 200


def train_autoencoder(
    vae: AutoencoderKL,
    pictures: Tensor,
    minutes: float,
    seed: int,
    checkpoint: Checkpoint,
    look: Callable[[AutoencoderKL], None],
) -> AutoencoderKL:
    """Train for some minutes; returns the averaged network, its scaling factor set to 1 / std of the latents.

    Args:
        pictures: (N, 3, 64, 64) uint8.
        look: called with the averaged network whenever a checkpoint is written.
    """
    torch.manual_seed(seed)
    ease(vae)
    vae.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    run = Averaged([vae], LR)
    done, spent = checkpoint.restore(run)
    torch.manual_seed(seed + done)
    start = time.time() - spent
    while (elapsed := time.time() - start) < 60 * minutes:
        share = elapsed / (60 * minutes)
        rate = LR * min(1.0, (done + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))
        x = pictures[torch.randint(len(pictures), (BATCH,))]
        if share < CROPPED_SHARE:
            down, right = (int(torch.randint(x.shape[-1] - CROP + 1, ())) for _ in range(2))
            x = x[..., down : down + CROP, right : right + CROP]
        x = as_float(x).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(x).latent_dist
            difference = vae.decode(posterior.sample()).sample - x
        error = difference.abs().mean()
        kl = 0.5 * (posterior.mean.float().square() + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        run.step(error + difference.square().mean() + KL_WEIGHT * kl, rate)
        done += 1
        if done % 50 == 0:
            left = minutes - (time.time() - start) / 60
            print(f"autoencoder {done}: L1 {error.item():.4f} KL {kl.item():.2f} left {left:.1f} min", flush=True)
        if done % SAVE_EVERY == 0:
            checkpoint.save(run, done, time.time() - start)
            look(run.averages[0])
    checkpoint.save(run, done, time.time() - start)
    average: AutoencoderKL = run.averages[0].eval()
    average.register_to_config(scaling_factor=round(1 / float(encode(average, pictures[:512]).std()), 4))
    return average


@torch.no_grad()
def ease(vae: AutoencoderKL) -> None:
    """Start as an almost linear code without noise: few steps are left for finding one."""
    for name, parameter in vae.named_parameters():
        if ".resnets." in name and ".conv2." in name:
            parameter.zero_()
    vae.quant_conv.bias[vae.config.latent_channels :] = FIRST_LOGVAR


@torch.no_grad()
def encode(vae: AutoencoderKL, pictures: Tensor, batch: int = 64) -> Tensor:
    """(N, 3, 64, 64) uint8 -> (N, 4, 16, 16) float32, the mean, not scaled."""
    parts = []
    for begin in range(0, len(pictures), batch):
        x = as_float(pictures[begin : begin + batch]).contiguous(memory_format=torch.channels_last)
        parts.append(vae.encode(x).latent_dist.mean)
        if begin and begin % 10_240 == 0:
            print(f"encoded {begin} of {len(pictures)}", flush=True)
    return torch.cat(parts).contiguous()


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """(N, 4, 16, 16) scaled latents -> (N, 3, 64, 64) in [-1, 1]."""
    pictures: Tensor = vae.decode(latents / vae.config.scaling_factor).sample
    return pictures.clamp(-1, 1)
