"""Train a classifier that judges samples of a reference model, digits or CIFAR-10.

    python -m scripts.models.train_classifier --data mnist.npz
    python -m scripts.models.train_classifier --kind cifar --data cifar10_jpeg.npz

Writes the weights (how they were made in the metadata) and a .json of the same name that says the same.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dq_toolchain.toolchain.disk.files import write_json, write_tensors
from dq_toolchain.toolchain.models.classifier import KEY, NAME, Architecture, Classifier
from scripts.models.cifar_data import load_cifar
from scripts.models.classifier_views import digit_views, photograph_views
from scripts.models.digit_data import load_digits


@dataclass(frozen=True)
class Kind:
    """One of the classifiers: what it is, what it learns from and how.

    Attributes:
        views: (B, C, S, S) in [-1, 1] -> a random view of each.
        smoothing: of labels. fast: compiled, bf16 autocast. stored: type of the weights in the file.
    """

    architecture: Architecture
    load: Callable[[Path, str], tuple[Tensor, Tensor]]
    views: Callable[[Tensor, torch.Generator], Tensor]
    data: str
    folder: Path
    epochs: int
    lr: float
    weight_decay: float
    smoothing: float
    fast: bool
    stored: torch.dtype


KINDS = {
    "digits": Kind(
        Architecture(
            name="digit classifier",
            channels=1,
            size=28,
            widths=(16, 32, 32, 64, 64),
            strides=(1, 2, 1, 2, 1),
            classes=10,
        ),
        load_digits,
        digit_views,
        data="MNIST train, 60 000 images",
        folder=Path("toolchain/models/digits"),
        epochs=16,
        lr=5e-3,
        weight_decay=1e-2,
        smoothing=0.05,
        fast=False,
        stored=torch.float32,
    ),
    "cifar": Kind(
        Architecture(
            name="CIFAR-10 classifier of the project",
            channels=3,
            size=32,
            widths=(64, 64, 128, 128, 256, 256, 256),
            strides=(1, 2, 1, 2, 1, 2, 1),
            classes=10,
        ),
        load_cifar,
        photograph_views,
        data="CIFAR-10 train, 50 000 images (JPEG copies)",
        folder=Path("models/cifar10"),
        epochs=20,
        lr=4e-3,
        weight_decay=5e-2,
        smoothing=0.1,
        fast=True,
        stored=torch.float16,
    ),
}


@torch.no_grad()
def accuracy(model: Classifier, images: Tensor, labels: Tensor) -> float:
    hits = sum(int((model(x).argmax(1) == y).sum()) for x, y in zip(images.split(500), labels.split(500), strict=True))
    return hits / len(labels)


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    kind = KINDS[args.kind]
    images, labels = kind.load(args.data, "train")
    epochs, lr = args.epochs or kind.epochs, args.lr or kind.lr
    model = Classifier(kind.architecture).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network: nn.Module = torch.compile(model) if kind.fast else model  # type: ignore[assignment]
    steps = epochs * (len(images) // args.batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=kind.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.15)
    generator = torch.Generator().manual_seed(args.seed)
    start, done = time.time(), 0
    for _epoch in range(epochs):
        for index in torch.randperm(len(images), generator=generator).split(args.batch):
            if len(index) < args.batch:
                continue
            x = kind.views(images[index], generator).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=kind.fast):
                logits = network(x)
            loss = F.cross_entropy(logits.float(), labels[index], label_smoothing=kind.smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            done += 1
            if done % 50 == 0:
                left = (time.time() - start) / done * (steps - done)
                print(f"step {done}/{steps} loss {loss.item():.3f} left {left / 60:.1f} min", flush=True)
    model.eval().to(kind.stored).float()  # what is judged is what is stored
    record = {
        "test_accuracy": accuracy(model, *kind.load(args.data, "test")),
        "epochs": epochs,
        "batch": args.batch,
        "lr": lr,
        "seed": args.seed,
        "parameters": sum(p.numel() for p in model.parameters()),
        "data": kind.data,
        KEY: kind.architecture.model_dump(mode="json"),
    }
    state = {name: tensor.to(kind.stored) for name, tensor in model.weights().items()}
    out = args.out or kind.folder / NAME
    write_tensors(out, state, {name: json.dumps(value) for name, value in record.items()})
    write_json(out.with_suffix(".json"), record)
    print(json.dumps(record))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=tuple(KINDS), default="digits")
    parser.add_argument(
        "--data",
        type=Path,
        help="digits: .npz with train, train_y, test, test_y; default: download MNIST; "
        "cifar: .npz of JPEG bytes, see cifar_data.py; needed",
    )
    parser.add_argument("--out", type=Path, help="default: classifier.safetensors in the model's folder")
    parser.add_argument("--epochs", type=int, help="default: 16 for digits, 20 for CIFAR-10")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, help="default: 5e-3 for digits, 4e-3 for CIFAR-10")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.kind == "cifar" and arguments.data is None:
        parser.error("--kind cifar needs --data, got none; give the .npz of JPEG bytes that cifar_data.py reads")
    train(arguments)
