"""EDA-DM: a calibration set of dense and various steps (TDAC), and fine-grained block reconstruction (FBR).

Liu et al. 2024, arXiv 2401.04585. TDAC: with F_t the middle block's features at step t, density D_t counts the steps whose
features are near, variety V_t sums the cosine distances to all; both scaled to 0-1, D + 1.2 V is a step's share of 1,024 pairs.
Differs: "near" is within the median distance of all pairs of steps, not within a number fitted to one model.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dq_toolchain.calibrate.data.trajectories import Trajectories
from dq_toolchain.calibrate.fitting.blocks import BLOCKS
from dq_toolchain.calibrate.methods.base import Method
from dq_toolchain.calibrate.methods.ranges import MSE
from dq_toolchain.calibrate.work.host_reads import read_on_host
from dq_toolchain.toolchain.errors import CalibrationError
from dq_toolchain.toolchain.sampler.denoiser import outputs_at

MIDDLE = "mid_block"
PAIRS = 1024
VARIETY = 1.2
INNER, DROP = 0.9, 0.5
"""Weight of the inner layers' errors (the paper uses 0.8 to 1), share of activations left in float (QDrop)."""


def check_network(network: nn.Module) -> None:
    """Raise CalibrationError: there is no middle block."""
    if not isinstance(getattr(network, MIDDLE, None), nn.Module):
        raise CalibrationError(
            f"method eda-dm chooses steps by the features of a UNet's middle block, which this {type(network).__name__} has not; "
            "take another method"
        )


def dense_and_various(trajectories: Trajectories) -> Tensor:
    """(N, M) bool: PAIRS pairs at most, shared out over the steps by density and variety."""
    features = _features(trajectories)
    calls, count = trajectories.targets.outputs.shape[:2]
    share = step_weights(features)
    generator = torch.Generator().manual_seed(trajectories.context.seed)
    chosen = torch.zeros(calls, count, dtype=torch.bool)
    for step, wanted in enumerate((PAIRS * share / share.sum()).round().long().tolist()):
        chosen[step, torch.randperm(count, generator=generator)[: max(1, wanted)]] = True
    return chosen


def step_weights(features: Tensor) -> Tensor:
    """D + 1.2 V of every step, (N, F) features -> (N,)."""
    distance = torch.cdist(features, features).square() / features.shape[1]
    others = ~torch.eye(len(features), dtype=torch.bool)
    near = distance <= (distance[others].median() if others.any() else 0)
    various = (1 - F.cosine_similarity(features[:, None], features[None], dim=2)).sum(1)
    return _scaled(near.sum(1).to(features.dtype)) + VARIETY * _scaled(various)


def _scaled(x: Tensor) -> Tensor:
    spread = x.max() - x.min()
    return (x - x.min()) / spread if spread > 0 else torch.ones_like(x)


@torch.no_grad()
def _features(trajectories: Trajectories) -> Tensor:
    """(N, F) of the middle block along the first sample's trajectory, as the paper takes one."""
    one, found = trajectories.first(1), list[Tensor]()
    middle = trajectories.context.network.get_submodule(MIDDLE)

    def keep(_module: nn.Module, _inputs: Any, out: Tensor) -> None:
        found.append(out[:1].flatten())

    with middle.register_forward_hook(keep):
        outputs_at(one.exact(), one.each_latent())
    return read_on_host(torch.stack(found), "features")


METHODS = (
    Method(
        "eda-dm",
        "Liu et al. 2024, arXiv 2401.04585",
        MSE,
        fit=(BLOCKS,),
        blocks={"joint": True, "inner": INNER, "drop": DROP},
        choose=dense_and_various,
        check_network=check_network,
    ),
)
