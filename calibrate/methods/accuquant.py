"""AccuQuant: the error that accumulates over several denoising steps, per step group. See docs/METHOD.md.

``accuquant``, the default, rounds weights in closed form and fits them with all ranges end to end; where the recipe asks for it,
over segments of several steps that cross step groups. ``accuquant-blocks`` goes in the order that we read the paper in: weights
rounded block after block, then the ranges of each step group in turn over all of its steps, by the paper's approximate gradient,
from the latents that the quantized groups before it leave.
"""

from __future__ import annotations

from dq_toolchain.calibrate.fitting.blocks import BLOCKS
from dq_toolchain.calibrate.fitting.multi_step import MULTI_STEP
from dq_toolchain.calibrate.methods.base import Method

SOURCE = "AccuQuant, NeurIPS 2025; our reconstruction"
GROUP_ITERATIONS = 60

METHODS = (
    Method("accuquant", SOURCE, fit=(MULTI_STEP,)),
    Method(
        "accuquant-blocks",
        SOURCE,
        settings={
            "calibrate": {
                "rounding": "nearest",
                "warmup": 0,
                "iterations": 0,
                "settling": 0,
                "group_iterations": GROUP_ITERATIONS,
                "gradient": "surrogate",
            },
            "blocks": {"activation_iterations": 0},
        },
        fit=(BLOCKS, MULTI_STEP),
    ),
)
