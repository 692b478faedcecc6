"""Trains the two policies on the expert's demonstrations, minutes each on one CPU core, and writes their weights beside this file.

python examples/diffusion_policy/train.py unet
python examples/diffusion_policy/train.py dit
"""

from __future__ import annotations

import argparse
import copy
import math
import time

import torch
from diffusers import DDPMScheduler
from policies import FLOW_STEPS, HERE, POLICIES, TRAIN_TIMESTEPS
from safetensors.torch import save_file
from task import demonstrations
from torch import Tensor, nn
from torch.nn.functional import mse_loss

EPISODES, BATCH, RATE, DECAY = 4000, 128, 1e-3, 0.995


def diffusion_loss(policy: nn.Module, chunks: Tensor, seen: Tensor, noise: Tensor, draws: torch.Generator) -> Tensor:
    """DDPM, Ho et al. 2020: the noise is predicted."""
    schedule = DDPMScheduler(num_train_timesteps=TRAIN_TIMESTEPS, beta_schedule="squaredcos_cap_v2")
    timesteps = torch.randint(TRAIN_TIMESTEPS, (len(chunks),), generator=draws)
    return mse_loss(policy(schedule.add_noise(chunks, noise, timesteps), timesteps.float(), seen), noise)


def flow_loss(policy: nn.Module, chunks: Tensor, seen: Tensor, noise: Tensor, draws: torch.Generator) -> Tensor:
    """Flow matching, Lipman et al. 2023: noise minus data is predicted, at time 1 from noise alone."""
    time_ = torch.rand(len(chunks), generator=draws)
    mixed = torch.lerp(chunks, noise, time_[:, None, None])
    return mse_loss(policy(mixed, time_ * FLOW_STEPS, seen), noise - chunks)


LOSSES = {"unet": diffusion_loss, "dit": flow_loss}
ITERATIONS = {"unet": 3500, "dit": 2500}


def train(name: str, iterations: int, *, seed: int = 0, episodes: int = EPISODES) -> nn.Module:
    """The policy with the moving average of its weights."""
    torch.manual_seed(seed)
    draws = torch.Generator().manual_seed(seed)
    seen, chunks = demonstrations(episodes, seed)
    policy = POLICIES[name]()
    average = copy.deepcopy(policy)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=RATE, weight_decay=1e-4)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: min(1.0, (done + 1) / 100) * 0.5 * (1 + math.cos(math.pi * done / iterations))
    )
    begin, losses = time.monotonic(), 0.0
    for done in range(1, iterations + 1):
        rows = torch.randint(len(seen), (BATCH,), generator=draws)
        noise = torch.randn(BATCH, *chunks.shape[1:], generator=draws)
        loss = LOSSES[name](policy, chunks[rows], seen[rows], noise, draws)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        rate.step()
        decay = min(DECAY, done / (done + 10))
        with torch.no_grad():
            for mean, now in zip(average.parameters(), policy.parameters(), strict=True):
                mean.lerp_(now, 1 - decay)
        losses += float(loss.detach())
        if done % 250 == 0:
            print(f"{name} {done}/{iterations}: loss {losses / 250:.4f}, {time.monotonic() - begin:.0f} s", flush=True)
            losses = 0.0
    return average.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", choices=tuple(POLICIES))
    arguments = parser.parse_args()
    policy = train(arguments.policy, ITERATIONS[arguments.policy])
    path = HERE / f"{arguments.policy}.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in policy.state_dict().items()}, path)
    print(f"{path}: {sum(p.numel() for p in policy.parameters())} parameters")


if __name__ == "__main__":
    main()
