"""Third stage: the UNet, v-prediction on latents, the text encoder as it is, one caption in ten empty."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from transformers import CLIPTextModel

from scripts.models.scenes.captions import caption
from scripts.models.scenes.checkpoint import Averaged, Checkpoint
from scripts.models.scenes.text import Vocabulary
from scripts.models.scenes.world import Scene

BATCH, LR, WARM_UP = 32, 2e-3, 200
EMPTY = 0.1
TIME_POWER = 0.65
"""timestep = uniform ** power * last: noisy steps are drawn more often, there it is decided what is drawn where."""
SAVE_EVERY = 250


@dataclass(frozen=True)
class Examples:
    """Scenes and their scaled latents, (N, 4, 16, 16) float32."""

    scenes: list[Scene]
    latents: Tensor

    def batch(self, draw: random.Random) -> tuple[Tensor, list[str]]:
        """Latents and captions; a scene is said in other words each time."""
        chosen = [draw.randrange(len(self.scenes)) for _ in range(BATCH)]
        captions = ["" if draw.random() < EMPTY else caption(self.scenes[index], draw) for index in chosen]
        return self.latents[chosen], captions


@dataclass(frozen=True)
class Drawer:
    """What draws from captions: the second stage's networks."""

    vocabulary: Vocabulary
    scheduler: DDIMScheduler
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel

    @torch.no_grad()
    def latents(self, captions: list[str], steps: int, guidance: float, seed: int) -> Tensor:
        """(N, 4, 16, 16) scaled latents, as StableDiffusionPipeline samples them."""
        said = self.text_encoder(self.vocabulary.rows(captions)).last_hidden_state
        nothing = self.text_encoder(self.vocabulary.rows([""])).last_hidden_state.expand_as(said)
        both = torch.cat([nothing, said])
        self.scheduler.set_timesteps(steps)
        shape = (len(captions), self.unet.config.in_channels, *(self.unet.config.sample_size,) * 2)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        for t in self.scheduler.timesteps:
            without, having = self.unet(torch.cat([x, x]), t, both).sample.chunk(2)
            x = self.scheduler.step(without + guidance * (having - without), t, x).prev_sample
        return x


def train_diffusion(
    drawer: Drawer,
    examples: Examples,
    minutes: float,
    seed: int,
    checkpoint: Checkpoint,
    look: Callable[[Drawer, int], None],
) -> tuple[int, float]:
    """Train for some minutes; ``look`` gets the averaged networks with every checkpoint and at the end.

    Returns:
        Steps, and the running mean of the loss.
    """
    torch.manual_seed(seed)
    unet, text_encoder = drawer.unet.train(), drawer.text_encoder.eval()
    unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    unet.set_attn_processor(AttnProcessor())  # few tokens: the plain products are faster backwards
    run = Averaged([unet], LR)
    done, spent = checkpoint.restore(run)
    averaged = replace(drawer, unet=run.averages[0])
    torch.manual_seed(seed + done)
    draw, last, running = random.Random(seed + done), drawer.scheduler.config.num_train_timesteps, math.nan
    start = time.time() - spent
    while (elapsed := time.time() - start) < 60 * minutes:
        x0, captions = examples.batch(draw)
        noise, t = torch.randn_like(x0), (torch.rand(len(x0)) ** TIME_POWER * last).long().clamp_max(last - 1)
        noisy, target = drawer.scheduler.add_noise(x0, noise, t), drawer.scheduler.get_velocity(x0, noise, t)
        with torch.no_grad():
            said = text_encoder(drawer.vocabulary.rows(captions)).last_hidden_state
        with torch.autocast("cpu", torch.bfloat16):
            out = unet(noisy.contiguous(memory_format=torch.channels_last), t, said).sample
        loss = (out.float() - target).square().mean()
        share = elapsed / (60 * minutes)
        run.step(loss, LR * min(1.0, (done + 1) / WARM_UP) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share))))
        done += 1
        running = loss.item() if math.isnan(running) else 0.98 * running + 0.02 * loss.item()
        if done % 50 == 0:
            left = minutes - (time.time() - start) / 60
            print(f"diffusion {done}: loss {running:.4f} left {left:.1f} min", flush=True)
        if done % SAVE_EVERY == 0:
            checkpoint.save(run, done, time.time() - start)
            look(averaged, done)
    checkpoint.save(run, done, time.time() - start)
    look(averaged, done)
    return done, running
