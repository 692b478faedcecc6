"""Train the digit classifier that ships beside the embedded model.

    python -m scripts.train_classifier --data mnist.npz --out toolchain/digits/classifier.safetensors

Shifts, rotations, zoom, contrast and noise make it indifferent to what a sampler or a quantizer does to a stroke.
Writes the weights (test accuracy in the metadata) and a .json of the same name with how they were made.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from dq_toolchain.toolchain.classifier import DigitClassifier
from dq_toolchain.toolchain.files import write_json, write_tensors
from scripts.digit_data import load_digits


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Random view of every image: (B, 1, 28, 28) in [-1, 1] -> the same shape."""

    def uniform(limit: float, *shape: int) -> Tensor:
        return (torch.rand(shape, generator=generator) * 2 - 1) * limit

    count = len(x)
    angle, zoom, shear = uniform(math.radians(12), count), 1 + uniform(0.12, count), uniform(0.15, count)
    rows = torch.stack(
        [
            torch.stack([angle.cos() * zoom, (shear - angle.sin()) * zoom], 1),
            torch.stack([angle.sin() * zoom, angle.cos() * zoom], 1),
        ],
        1,
    )
    theta = torch.cat([rows, uniform(2 / 14, count, 2).unsqueeze(2)], 2)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    contrast = 1 - 0.25 * torch.rand(count, 1, 1, 1, generator=generator)
    moved = F.grid_sample(x + 1, grid, align_corners=False) * contrast - 1
    noise = torch.randn(x.shape, generator=generator) * 0.2 * torch.rand(count, 1, 1, 1, generator=generator)
    return (moved + noise).clamp(-1, 1)


@torch.no_grad()
def accuracy(model: DigitClassifier, images: Tensor, labels: Tensor) -> float:
    hits = sum(int((model(x).argmax(1) == y).sum()) for x, y in zip(images.split(500), labels.split(500), strict=True))
    return hits / len(labels)


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    images, labels = load_digits(args.data, "train")
    model = DigitClassifier().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = args.epochs * (len(images) // args.batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=steps, pct_start=0.15)
    generator = torch.Generator().manual_seed(args.seed)
    start, done = time.time(), 0
    for _epoch in range(args.epochs):
        for index in torch.randperm(len(images), generator=generator).split(args.batch):
            if len(index) < args.batch:
                continue
            x = augment(images[index], generator).contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(model(x), labels[index], label_smoothing=0.05)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            done += 1
            if done % 50 == 0:
                left = (time.time() - start) / done * (steps - done)
                print(f"step {done}/{steps} loss {loss.item():.3f} left {left / 60:.1f} min", flush=True)
    model.eval()
    result = accuracy(model, *load_digits(args.data, "test"))
    record = {
        "test_accuracy": result,
        "epochs": args.epochs,
        "batch": args.batch,
        "lr": args.lr,
        "seed": args.seed,
        "parameters": sum(p.numel() for p in model.parameters()),
        "data": "MNIST train, 60 000 images",
    }
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    write_tensors(args.out, state, {name: json.dumps(value) for name, value in record.items()})
    write_json(args.out.with_suffix(".json"), record)
    print(json.dumps(record))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help=".npz with train, train_y, test, test_y; default: download MNIST")
    parser.add_argument("--out", type=Path, default=Path("toolchain/digits/classifier.safetensors"))
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    train(parser.parse_args())
