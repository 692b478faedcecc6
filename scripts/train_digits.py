"""Train the embedded reference model: a class-conditional v-prediction UNet2DModel for 28x28 digits.

    python -m scripts.train_digits --data mnist.npz --epochs 10
    python -m scripts.train_digits --data mnist.npz --epochs 5 --resume --time-power 0.6 --lr 1e-3 --seed 1
    python -m scripts.train_digits --data mnist.npz --epochs 8 --resume --time-power 0.6 --lr 1.2e-3 --seed 2
    python -m scripts.train_digits --data mnist.npz --epochs 5 --resume --time-power 0.7 --lr 1.2e-3 --seed 3 --batch 64

gave the weights that ship. Each command goes on from the weights of the one before; from the second on, noisy
timesteps are drawn more often: there the class is decided.

Writes a diffusers folder (unet/, scheduler/), the loss curve's end and a sample grid. Label 10 means "no class":
10 % of the labels are replaced by it, so that classifier-free guidance works.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DModel
from PIL import Image
from torch import Tensor, nn

from scripts.digit_data import load_digits

NULL_LABEL = 10


def build_unet() -> UNet2DModel:
    return UNet2DModel(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(32, 64, 64),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=32,
        num_class_embeds=NULL_LABEL + 1,
    )


def build_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        timestep_spacing="trailing",
    )


@torch.no_grad()
def sample_grid(unet: UNet2DModel, guidance: float, rows: int, steps: int = 20, seed: int = 0) -> Tensor:
    """(rows*10, 1, 28, 28) samples in [-1, 1]; column k holds class k."""
    scheduler = build_scheduler()
    scheduler.set_timesteps(steps)
    labels = torch.arange(10).repeat(rows)
    x = torch.randn(len(labels), 1, 28, 28, generator=torch.Generator().manual_seed(seed))
    null = torch.full_like(labels, NULL_LABEL)
    for t in scheduler.timesteps:
        cond = unet(x, t, labels).sample
        out = cond if guidance == 1 else (un := unet(x, t, null).sample) + guidance * (cond - un)
        x = scheduler.step(out, t, x).prev_sample
    return x.clamp(-1, 1)


def save_grid(images: Tensor, path: Path) -> None:
    grid = images.reshape(-1, 10, 28, 28).permute(0, 2, 1, 3).reshape(-1, 280)
    Image.fromarray(((grid + 1) * 127.5).round().to(torch.uint8).numpy()).save(path)


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images, labels = (t.to(device) for t in load_digits(args.data, "train"))
    unet = UNet2DModel.from_pretrained(args.out / "unet") if args.resume else build_unet()
    unet = unet.to(device, memory_format=torch.channels_last).train()
    ema = copy.deepcopy(unet).eval()
    network: nn.Module = torch.compile(unet) if args.compile else unet  # type: ignore[assignment]
    scheduler = build_scheduler()
    optimizer = torch.optim.AdamW(unet.parameters(), lr=args.lr, weight_decay=1e-4)
    steps = args.epochs * (len(images) // args.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda k: min(1.0, k / 200) * 0.5 * (1 + math.cos(math.pi * min(1.0, k / steps)))
    )
    order = torch.Generator(device).manual_seed(args.seed)
    done, running, start = 0, None, time.time()
    for _epoch in range(args.epochs):
        for index in torch.randperm(len(images), generator=order, device=device).split(args.batch):
            if len(index) < args.batch:
                continue
            x0, y = images[index], labels[index]
            y = torch.where(torch.rand(len(y), device=device) < 0.1, NULL_LABEL, y)
            noise = torch.randn_like(x0)
            last = scheduler.config.num_train_timesteps
            t = (torch.rand(len(x0), device=device) ** args.time_power * last).long().clamp_max(last - 1)
            noisy, target = scheduler.add_noise(x0, noise, t), scheduler.get_velocity(x0, noise, t)
            with torch.autocast(device, torch.bfloat16):
                out = network(noisy.contiguous(memory_format=torch.channels_last), t, y).sample
            loss = (out.float() - target).square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            done += 1
            decay = min(0.9995, (1 + done) / (10 + done))
            with torch.no_grad():
                for a, b in zip(ema.parameters(), unet.parameters(), strict=True):
                    a.lerp_(b, 1 - decay)
            running = loss.item() if running is None else 0.99 * running + 0.01 * loss.item()
            if done % 100 == 0:
                left = (time.time() - start) / done * (steps - done)
                print(f"step {done}/{steps} loss {running:.4f} left {left / 60:.1f} min", flush=True)
            if done % 500 == 0 or done == steps:
                save(ema, running, done, args)


def save(ema: UNet2DModel, loss: float | None, done: int, args: argparse.Namespace) -> None:
    out: Path = args.out
    plain = copy.deepcopy(ema).cpu().to(memory_format=torch.contiguous_format)
    plain.save_pretrained(out / "unet")
    (out / "unet" / "diffusion_pytorch_model.safetensors").chmod(0o644)
    build_scheduler().save_pretrained(out / "scheduler")
    record = out / "training.json"
    earlier = json.loads(record.read_text())["runs"] if args.resume and record.is_file() else []
    earlier = [run for run in earlier if run["seed"] != args.seed]
    run = {
        "optimizer_steps": done,
        "batch": args.batch,
        "epochs": args.epochs,
        "lr": args.lr,
        "seed": args.seed,
        "time_power": args.time_power,
        "train_loss_running_mean": loss,
    }
    summary = {"parameters": sum(p.numel() for p in plain.parameters()), "runs": [*earlier, run]}
    record.write_text(json.dumps(summary, indent=2) + "\n")
    save_grid(sample_grid(plain, 3.0, rows=4), out / "samples.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help=".npz with train, train_y, test, test_y; default: download MNIST")
    parser.add_argument("--out", type=Path, default=Path("toolchain/digits"))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--resume", action="store_true", help="go on from the weights in --out")
    parser.add_argument(
        "--time-power", type=float, default=1.0, help="timestep = uniform ** power; below 1 favours noise"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    train(parser.parse_args())
