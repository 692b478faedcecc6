"""PQD: blocks reconstructed with activations dropped to float, on timesteps drawn from a normal distribution.

Ye et al. 2025, arXiv 2501.00124; no official code, known at second hand: time-aware calibration on timesteps drawn from a
normal distribution, and QDrop. Ours: its mean and deviation are those of PTQ4DM's code, and weights and activation
scales are learned together, as QDrop's code has it; half of the activations are dropped.
"""

from __future__ import annotations

from torch import Tensor

from dq_toolchain.calibrate.data.trajectories import Trajectories
from dq_toolchain.calibrate.fitting.blocks import BLOCKS
from dq_toolchain.calibrate.methods.base import Method
from dq_toolchain.calibrate.methods.ptq4dm import CODE, PAIRS, normal_times
from dq_toolchain.calibrate.methods.ranges import MSE

DROP = 0.5
"""Share of activations left in float while a block is reconstructed."""


def time_aware(trajectories: Trajectories) -> Tensor:
    """(N, M) bool: PAIRS draws at most, their times from the normal distribution."""
    return normal_times(*CODE)(trajectories)


METHODS = (
    Method(
        "pqd",
        "Ye et al. 2025, arXiv 2501.00124, at second hand",
        MSE,
        fit=(BLOCKS,),
        blocks={"joint": True, "drop": DROP},
        choose=time_aware,
        constants={"pqd.pairs": PAIRS},
    ),
)
