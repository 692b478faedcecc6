"""Two policies: what is sampled is an action chunk (B, 2, 16), what it is conditioned on an observation (B, 10).

Both are plain torch modules with ``forward(sample, timestep, observation)``, of parts that ExecuTorch and TensorRT take; where that
is not the published part, the docstring says why.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import Timesteps
from safetensors.torch import load_file
from task import HORIZON, OBSERVED
from torch import Tensor, nn

HERE = Path(__file__).parent
TRAIN_TIMESTEPS, DDIM_STEPS, FLOW_STEPS = 100, 10, 4


class Told(nn.Module):
    """Timestep and observation -> (B, width). ``timesteps``: what the largest timestep is, of a thousand."""

    def __init__(self, width: int, timesteps: int) -> None:
        super().__init__()
        self.scale = 1000 / timesteps
        self.sinusoids = Timesteps(32, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time = nn.Linear(32, width)
        self.seen = nn.Linear(OBSERVED, width)
        self.both = nn.Linear(width, width)

    def forward(self, timestep: Tensor, observation: Tensor) -> Tensor:
        time = self.time(self.sinusoids(timestep * self.scale))
        return F.silu(self.both(F.silu(time + self.seen(observation))))


class Residual(nn.Module):
    """Conv1d, norm, SiLU, FiLM, Conv1d, norm, SiLU, and the input (Chi et al. 2023, who take Mish: XNNPACK has SiLU only)."""

    def __init__(self, entering: int, leaving: int, told: int) -> None:
        super().__init__()
        self.channels = leaving
        self.first = nn.Conv1d(entering, leaving, 3, padding=1)
        self.second = nn.Conv1d(leaving, leaving, 3, padding=1)
        self.norm_first, self.norm_second = nn.GroupNorm(8, leaving), nn.GroupNorm(8, leaving)
        self.film = nn.Linear(told, 2 * leaving)
        self.beside = nn.Conv1d(entering, leaving, 1) if entering != leaving else None

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        film = self.film(told)[:, :, None]
        y = F.silu(self.norm_first(self.first(x))) * (1 + film[:, : self.channels]) + film[:, self.channels :]
        y = F.silu(self.norm_second(self.second(y)))
        return y + (x if self.beside is None else self.beside(x))


class Twice(nn.Module):
    """(B, C, T) -> (B, C, 2T), each number twice, then a convolution. A product with ones is what XNNPACK's delegate takes; the
    published transposed convolution has integer kernels on none of the targets."""

    ones: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("ones", torch.ones(1, 1, 2), persistent=False)
        self.conv = nn.Conv1d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, steps = x.shape
        return self.conv((x.reshape(1, batch * channels * steps, 1) * self.ones).reshape(batch, channels, 2 * steps))


class UNet(nn.Module):
    """Observation-conditioned UNet over the steps of the chunk (Chi et al. 2023, "Diffusion Policy"), two levels."""

    def __init__(self, outer: int = 40, inner: int = 80, told: int = 80) -> None:
        super().__init__()
        self.told = Told(told, TRAIN_TIMESTEPS)
        self.enter = nn.ModuleList([Residual(2, outer, told), Residual(outer, outer, told)])
        self.down = nn.Conv1d(outer, outer, 3, stride=2, padding=1)
        self.inside = nn.ModuleList([Residual(outer, inner, told), Residual(inner, inner, told)])
        self.middle = Residual(inner, inner, told)
        self.back = nn.ModuleList([Residual(2 * inner, inner, told), Residual(inner, outer, told)])
        self.up = Twice(outer)
        self.leave = nn.ModuleList([Residual(2 * outer, outer, told), Residual(outer, outer, told)])
        self.out = nn.Conv1d(outer, 2, 1)

    def forward(self, sample: Tensor, timestep: Tensor, observation: Tensor) -> Tensor:
        told, x = self.told(timestep, observation), sample
        for block in self.enter:
            x = block(x, told)
        outer, x = x, self.down(x)
        for block in self.inside:
            x = block(x, told)
        x = torch.cat([self.middle(x, told), x], dim=1)
        for block in self.back:
            x = block(x, told)
        x = torch.cat([self.up(x), outer], dim=1)
        for block in self.leave:
            x = block(x, told)
        out: Tensor = self.out(x)
        return out


class Block(nn.Module):
    """A block of a diffusion transformer with adaLN-Zero (Peebles and Xie 2023)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.width = width
        self.norm_attention = nn.LayerNorm(width, elementwise_affine=False)
        self.norm_mlp = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = Attention(width, heads=heads, dim_head=width // heads, bias=True)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        each = self.modulation(told).reshape(-1, 1, 6 * self.width)
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = (
            each[..., start : start + self.width] for start in range(0, 6 * self.width, self.width)
        )
        x = x + gate * self.attention(self.norm_attention(x) * (1 + scale) + shift)
        wide = F.gelu(self.wide(self.norm_mlp(x) * (1 + scale_mlp) + shift_mlp))
        return x + gate_mlp * self.narrow(wide)


class DiT(nn.Module):
    """A small diffusion transformer whose tokens are the steps of the chunk; trained with flow matching."""

    def __init__(self, width: int = 80, depth: int = 3, heads: int = 5) -> None:
        super().__init__()
        self.width = width
        self.told = Told(width, FLOW_STEPS)
        self.into = nn.Linear(2, width)
        self.positions = nn.Parameter(torch.randn(1, HORIZON, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, 2)

    def forward(self, sample: Tensor, timestep: Tensor, observation: Tensor) -> Tensor:
        told = self.told(timestep, observation)
        x = self.into(sample.transpose(1, 2)) + self.positions
        for block in self.blocks:
            x = block(x, told)
        each = self.modulation(told).reshape(-1, 1, 2 * self.width)
        x = self.norm(x) * (1 + each[..., self.width :]) + each[..., : self.width]
        out: Tensor = self.out(x).transpose(1, 2)
        return out


POLICIES = {"unet": UNet, "dit": DiT}
STEPS = {"unet": DDIM_STEPS, "dit": FLOW_STEPS}


def scheduler_of(name: str) -> DDIMScheduler | FlowMatchEulerDiscreteScheduler:
    """DDIM over the noise levels of Chi et al.; or Euler's method, whose timesteps 4, 3, 2, 1 are the times 1, 3/4, 1/2, 1/4."""
    if name == "dit":
        return FlowMatchEulerDiscreteScheduler(num_train_timesteps=FLOW_STEPS)
    return DDIMScheduler(
        num_train_timesteps=TRAIN_TIMESTEPS, beta_schedule="squaredcos_cap_v2", clip_sample=False, set_alpha_to_one=True
    )


def trained(name: str) -> nn.Module:
    """The policy with the weights that ``train.py`` made."""
    policy = POLICIES[name]()
    policy.load_state_dict(load_file(HERE / f"{name}.safetensors"))
    return policy.eval().requires_grad_(False)
