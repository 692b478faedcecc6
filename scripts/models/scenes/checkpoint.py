"""Networks in training with their averages, and the checkpoint from which a run that was killed goes on."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

EMA_DECAY, CLIP = 0.998, 1.0


class Averaged:
    """Networks trained together by AdamW, and the exponential moving average of their weights, which is kept."""

    def __init__(self, networks: list[nn.Module], lr: float, weight_decay: float = 1e-4) -> None:
        self.networks, self.averages = networks, [copy.deepcopy(network).eval() for network in networks]
        self.weights = {f"{i}.{n}": p for i, m in enumerate(networks) for n, p in m.named_parameters()}
        self.averaged = {f"{i}.{n}": p for i, m in enumerate(self.averages) for n, p in m.named_parameters()}
        self.optimizer = torch.optim.AdamW(
            self.weights.values(), lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True
        )
        self.steps = 0

    def step(self, loss: Tensor, lr: float) -> None:
        """One step of the optimizer and of the average."""
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(list(self.weights.values()), CLIP)
        self.optimizer.step()
        self.steps += 1
        decay = min(EMA_DECAY, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.averaged.values()), list(self.weights.values()), 1 - decay)


@dataclass(frozen=True)
class Checkpoint:
    """A safetensors file: weights, averages, the optimizer's state, steps and seconds so far."""

    path: Path

    def save(self, run: Averaged, done: int, seconds: float) -> None:
        tensors = {f"weight/{n}": p.detach() for n, p in run.weights.items()}
        tensors |= {f"average/{n}": p.detach() for n, p in run.averaged.items()}
        for name, weight in run.weights.items():
            tensors |= {f"{key}/{name}": value for key, value in run.optimizer.state.get(weight, {}).items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, part, {"done": str(done), "seconds": str(seconds)})
        part.rename(self.path)

    @torch.no_grad()
    def restore(self, run: Averaged) -> tuple[int, float]:
        """Put the file's state into ``run``; returns steps and seconds so far, 0 and 0 without a file."""
        if not self.path.is_file():
            return 0, 0.0
        with safe_open(self.path, "pt") as file:
            metadata = file.metadata()
        tensors = load_file(self.path)
        for name, weight in run.weights.items():
            weight.copy_(tensors[f"weight/{name}"])
            run.averaged[name].copy_(tensors[f"average/{name}"])
            keys = ("step", "exp_avg", "exp_avg_sq")
            run.optimizer.state[weight] = {key: tensors[f"{key}/{name}"] for key in keys}
        run.steps = int(metadata["done"])
        return run.steps, float(metadata["seconds"])
