"""PTQ4DM: ranges measured on timesteps drawn from a normal distribution that leans towards the image (NDTC).

Shang et al. 2023, arXiv 2211.15736. The paper draws t ~ N(mu, T / 2), mu <= T / 2; its code draws from
N(0.4, 0.4) in units of T, far wider, and published with that. ``ptq4dm`` is the code's, ``ptq4dm-paper`` the paper's. The
code pairs latents with timesteps that run the other way; here every latent has its own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dq_toolchain.calibrate.data.trajectories import Trajectories
from dq_toolchain.calibrate.methods.base import Choose, Method
from dq_toolchain.calibrate.methods.ranges import MSE

PAIRS = 1024
TRAINED_STEPS = 1000
CODE = (0.4, 0.4)
PAPER = (0.4, math.sqrt(TRAINED_STEPS / 2) / TRAINED_STEPS)
"""(mean, standard deviation) of t / T. The paper's mean is any up to 1/2; the code's is taken for both."""


def normal_times(mean: float, deviation: float) -> Choose:
    """A chooser of PAIRS draws: times as said, clipped to the trajectory, samples uniformly."""

    def choose(trajectories: Trajectories) -> Tensor:
        calls, count = trajectories.targets.outputs.shape[:2]
        generator = torch.Generator().manual_seed(trajectories.context.seed)
        time = torch.randn(PAIRS, generator=generator) * deviation + mean  # 0 is the image
        step = (calls - 1 - (time * calls).floor().long()).clamp(0, calls - 1)
        chosen = torch.zeros(calls, count, dtype=torch.bool)
        chosen[step, torch.randint(count, (PAIRS,), generator=generator)] = True
        return chosen

    return choose


def _method(name: str, source: str, mean: float, deviation: float) -> Method:
    constants = {"ptq4dm.mean": mean, "ptq4dm.deviation": deviation}
    return Method(name, source, MSE, choose=normal_times(mean, deviation), constants=constants)


METHODS = (
    _method("ptq4dm", "Shang et al. 2023, arXiv 2211.15736, as its code", *CODE),
    _method("ptq4dm-paper", "Shang et al. 2023, arXiv 2211.15736, as its paper", *PAPER),
)
