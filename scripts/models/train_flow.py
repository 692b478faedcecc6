"""Train a small flow-matching transformer of FLUX's topology on digits of 14x14 pixels: the reference model for a few steps.

    python -m scripts.models.train_flow --data mnist.npz --out models/flow_digits --minutes 25

Writes transformer/, scheduler/, conditioning.safetensors (a row of "text" for each class, zeros for none) and training.json. Noise
levels are drawn from a logit-normal distribution and the target is noise - picture (Esser et al. 2024, rectified flow). One row in
ten is replaced by zeros, so that guidance works. What is kept is the moving average of the weights, in fp16.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from safetensors.torch import save_file
from torch import Tensor, nn

from dq_toolchain.toolchain.models.architectures import call_network
from scripts.models.digit_data import load_digits

SIDE, CLASSES, TOKENS, WIDTH = 14, 10, 4, 16
UNCONDITIONAL_SHARE, DECAY, BATCH, RATE = 0.1, 0.998, 64, 1.5e-3


def build_network() -> FluxTransformer2DModel:
    """1.3 M parameters, 49 tokens of picture and 4 of text."""
    return FluxTransformer2DModel(
        in_channels=4, num_layers=2, num_single_layers=4, attention_head_dim=16, num_attention_heads=6,
        joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip


def rows() -> dict[str, Tensor]:
    """What stands for a text of each class: states (10, 4, 16) and what is pooled of them (10, 16)."""
    generator = torch.Generator().manual_seed(0)
    return {
        "encoder_hidden_states": torch.randn(CLASSES, TOKENS, WIDTH, generator=generator),
        "pooled_projections": torch.randn(CLASSES, WIDTH, generator=generator),
    }


def loss_of(network: nn.Module, pictures: Tensor, labels: Tensor, table: dict[str, Tensor]) -> Tensor:
    kept = (torch.rand(len(labels)) >= UNCONDITIONAL_SHARE).float()
    text = {name: value[labels] * kept.view(-1, *[1] * (value.dim() - 1)) for name, value in table.items()}
    level = torch.sigmoid(torch.randn(len(labels)))
    noise = torch.randn_like(pictures)
    mixed = torch.lerp(pictures, noise, level.view(-1, 1, 1, 1))
    out = call_network(network, mixed, level * 1000, text)
    return (out - (noise - pictures)).square().mean()


def train(network: nn.Module, pictures: Tensor, labels: Tensor, minutes: float) -> tuple[nn.Module, dict[str, Any]]:
    """The averaged network, and what is said of the run; the rate falls to zero as the time runs out."""
    table, average = rows(), copy.deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-4)
    begin, done, mean = time.monotonic(), 0, math.nan
    while (share := (time.monotonic() - begin) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (done + 1) / 100) * 0.5 * (1 + math.cos(math.pi * share))
        index = torch.randint(len(pictures), (BATCH,))
        loss = loss_of(network, pictures[index], labels[index], table)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        done += 1
        decay = min(DECAY, (1 + done) / (10 + done))
        with torch.no_grad():
            for a, b in zip(average.parameters(), network.parameters(), strict=True):
                a.lerp_(b, 1 - decay)
        mean = loss.item() if math.isnan(mean) else 0.99 * mean + 0.01 * loss.item()
        if done % 50 == 0:
            print(f"{done} steps, loss {mean:.4f}, {100 * share:.0f} % of the time", flush=True)
    return average, {"optimizer_steps": done, "batch": BATCH, "minutes": minutes, "train_loss_running_mean": mean}


def save(network: Any, record: dict[str, Any], out: Path) -> None:
    network.half().save_pretrained(out / "transformer")
    file = out / "transformer" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"sample_size": SIDE}, indent=2) + "\n")
    (out / "transformer" / "diffusion_pytorch_model.safetensors").chmod(0o644)
    FlowMatchEulerDiscreteScheduler(shift=1.0).save_pretrained(out / "scheduler")
    both = {f"cond.{name}": value for name, value in rows().items()}
    both |= {f"uncond.{name}": torch.zeros_like(value) for name, value in rows().items()}
    save_file(both, out / "conditioning.safetensors")
    (out / "conditioning.safetensors").chmod(0o644)
    parameters = sum(p.numel() for p in network.parameters())
    (out / "training.json").write_text(json.dumps({"parameters": parameters, **record}, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help=".npz with train, train_y, test, test_y; default: download MNIST")
    parser.add_argument("--out", type=Path, default=Path("models/flow_digits"))
    parser.add_argument("--minutes", type=float, default=25)
    given = parser.parse_args()
    torch.manual_seed(0)
    images, classes = load_digits(given.data, "train")
    made, about = train(build_network(), nn.functional.avg_pool2d(images, 2), classes, given.minutes)
    save(made, about, given.out)
