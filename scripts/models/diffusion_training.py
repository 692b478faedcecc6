"""The training loop of the reference models: a class-conditional, v-predicting UNet on images held in memory.

One label in ten is replaced by "no class", so that classifier-free guidance works. What is kept is the exponential
moving average of the weights. A checkpoint lets a run that was killed go on where it stood. Below the loop stands what
every script does with the result: it saves the model's folder and a grid of samples.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

UNCONDITIONAL_SHARE = 0.1
EMA_DECAY = 0.9995
SAVE_EVERY = 500


@dataclass(frozen=True)
class Training:
    """Settings of one run.

    Attributes:
        time_power: timestep = uniform ** power * last; below 1 favours noise.
        flip: mirror every other image.
    """

    epochs: int
    batch: int
    lr: float
    seed: int
    null_label: int
    time_power: float = 1.0
    flip: bool = False
    compile: bool = True


class Run:
    """A training run: network, average, optimizer and how many optimizer steps are done."""

    def __init__(self, unet: UNet2DModel, scheduler: Any, settings: Training, images: Tensor, labels: Tensor) -> None:
        torch.manual_seed(settings.seed)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.settings, self.scheduler = settings, scheduler
        self.images, self.labels = images.to(self.device), labels.to(self.device)
        self.unet = unet.to(self.device, memory_format=torch.channels_last).train()
        self.ema = copy.deepcopy(self.unet).eval()
        self.network: nn.Module = torch.compile(self.unet) if settings.compile else self.unet  # type: ignore[assignment]
        self.optimizer = torch.optim.AdamW(self.unet.parameters(), lr=settings.lr, weight_decay=1e-4)
        self.per_epoch = len(images) // settings.batch
        self.steps = settings.epochs * self.per_epoch
        self.done, self.loss = 0, math.nan

    def train(self, save: Callable[[Run], None], checkpoint: Path | None = None) -> None:
        """Train to the end, calling ``save`` now and then and at the end."""
        if checkpoint is not None and checkpoint.is_file():
            self._restore(checkpoint)
        begun, start = self.done, time.time()
        while self.done < self.steps:
            for index in self._batches():
                self._step(index)
                if self.done % 100 == 0:
                    left = (time.time() - start) / (self.done - begun) * (self.steps - self.done)
                    print(f"step {self.done}/{self.steps} loss {self.loss:.4f} left {left / 60:.1f} min", flush=True)
                if self.done % SAVE_EVERY == 0 or self.done == self.steps:
                    save(self)
                    if checkpoint is not None:
                        self._checkpoint(checkpoint)

    def averaged(self) -> UNet2DModel:
        """The network to keep, on the CPU."""
        return copy.deepcopy(self.ema).cpu().to(memory_format=torch.contiguous_format)

    def _batches(self) -> list[Tensor]:
        """What is left of the current epoch; its order derives from (seed, epoch)."""
        epoch, position = divmod(self.done, self.per_epoch)
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.images), generator=generator).split(self.settings.batch)
        return [index.to(self.device) for index in order[position : self.per_epoch]]

    def _step(self, index: Tensor) -> None:
        s, device = self.settings, self.device
        x0, y = self.images[index], self.labels[index]
        if s.flip:
            x0 = torch.where(torch.rand(len(x0), 1, 1, 1, device=device) < 0.5, x0.flip(3), x0)
        y = torch.where(torch.rand(len(y), device=device) < UNCONDITIONAL_SHARE, s.null_label, y)
        noise, last = torch.randn_like(x0), self.scheduler.config.num_train_timesteps
        t = (torch.rand(len(x0), device=device) ** s.time_power * last).long().clamp_max(last - 1)
        noisy = self.scheduler.add_noise(x0, noise, t)
        target = self.scheduler.get_velocity(x0, noise, t)
        with torch.autocast(device, torch.bfloat16):
            out = self.network(noisy.contiguous(memory_format=torch.channels_last), t, y).sample
        loss = (out.float() - target).square().mean()
        for group in self.optimizer.param_groups:
            group["lr"] = (
                s.lr * min(1.0, (self.done + 1) / 200) * 0.5 * (1 + math.cos(math.pi * self.done / self.steps))
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimizer.step()
        self.done += 1
        decay = min(EMA_DECAY, (1 + self.done) / (10 + self.done))
        with torch.no_grad():
            for a, b in zip(self.ema.parameters(), self.unet.parameters(), strict=True):
                a.lerp_(b, 1 - decay)
        self.loss = loss.item() if math.isnan(self.loss) else 0.99 * self.loss + 0.01 * loss.item()

    def _checkpoint(self, path: Path) -> None:
        tensors = {f"unet.{n}": p.detach() for n, p in self.unet.named_parameters()}
        tensors |= {f"ema.{n}": p.detach() for n, p in self.ema.named_parameters()}
        for name, parameter in self.unet.named_parameters():
            tensors |= {f"{key}.{name}": value for key, value in self.optimizer.state[parameter].items()}
        temporary = path.with_suffix(".part")
        save_file(
            {n: t.contiguous() for n, t in tensors.items()},
            temporary,
            {"done": str(self.done), "loss": repr(self.loss)},
        )
        temporary.rename(path)

    @torch.no_grad()
    def _restore(self, path: Path) -> None:
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        tensors = load_file(path)
        self.done, self.loss = int(metadata["done"]), float(metadata["loss"])
        torch.manual_seed(self.settings.seed * 1_000_003 + self.done)
        for name, parameter in self.unet.named_parameters():
            parameter.copy_(tensors[f"unet.{name}"])
            self.optimizer.state[parameter] = {
                key: tensors[f"{key}.{name}"].to("cpu" if key == "step" else self.device)
                for key in ("step", "exp_avg", "exp_avg_sq")
            }
        for name, parameter in self.ema.named_parameters():
            parameter.copy_(tensors[f"ema.{name}"])


def save_model(unet: UNet2DModel, scheduler: Any, out: Path) -> None:
    """Write diffusers' folder: ``unet/`` in the type that the weights have, and ``scheduler/``."""
    unet.save_pretrained(out / "unet")
    (out / "unet" / "diffusion_pytorch_model.safetensors").chmod(0o644)  # safetensors lets only the owner read it
    scheduler.save_pretrained(out / "scheduler")


@torch.no_grad()
def draw_samples(
    unet: UNet2DModel, scheduler: Any, rows: int, steps: int, seed: int, guidance: float, null_label: int
) -> Tensor:
    """(rows * null_label, C, S, S) samples in [-1, 1]; column k of ``null_label`` columns holds class k."""
    scheduler.set_timesteps(steps)
    labels = torch.arange(null_label).repeat(rows)
    null, side = torch.full_like(labels, null_label), unet.config.sample_size
    x = torch.randn(len(labels), unet.config.in_channels, side, side, generator=torch.Generator().manual_seed(seed))
    for t in scheduler.timesteps:
        cond = unet(x, t, labels).sample
        out = cond if guidance == 1 else (un := unet(x, t, null).sample) + guidance * (cond - un)
        x = scheduler.step(out, t, x).prev_sample
    return x.clamp(-1, 1)


def save_grid(images: Tensor, columns: int, path: Path, scale: int = 1) -> None:
    """Write (rows * columns, 1 or 3, S, S) images in [-1, 1] as one picture, ``scale`` times as large."""
    channels, side = images.shape[1], images.shape[-1]
    grid = (
        images.reshape(-1, columns, channels, side, side).permute(0, 3, 1, 4, 2).reshape(-1, columns * side, channels)
    )
    pixels = ((grid + 1) * 127.5).round().to(torch.uint8).repeat_interleave(scale, 0).repeat_interleave(scale, 1)
    Image.fromarray(pixels.squeeze(2).numpy()).save(path)
