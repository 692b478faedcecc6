"""What tells the published block-reconstruction methods apart, and how much work they may do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BlockPhase = Literal["weights", "activations", "joint"]
PHASES: tuple[BlockPhase, ...] = ("weights", "activations", "joint")


@dataclass(frozen=True)
class BlockOptions:
    """What tells the published methods apart.

    Attributes:
        temporal: the temporal block is one unit, optimised first, and left out of the others (TFMQ-DM's TIAR).
        inner: weight of the summed output errors of the layers inside a unit, 0 leaves them out (EDA-DM's FBR).
        drop: share of activation elements left in float while a unit is optimised (QDrop). Differs from QDrop's
            code: a unit's inputs come from the quantized prefix alone, they are not mixed with FP32 ones.
        joint: weights and activation scales together (EDA-DM); otherwise all weights first, with activations in
            float everywhere, then the scales with the hard weights (Q-Diffusion).
        aligned: rows are weighted while rounding is learned (gradient-aligned calibration); scales see all alike.
    """

    temporal: bool = False
    inner: float = 0.0
    drop: float = 0.0
    joint: bool = False
    aligned: bool = False


@dataclass(frozen=True)
class BlockBudget:
    """Iterations per unit (of rounding or both; of scales), rows per batch, Adam's rates for V and for log-scales.

    The papers take 20,000 iterations at lr 1e-3. What counts is their product, as V travels about 2.4: the defaults go
    with some 200 and 50 iterations (on tiny networks 1e-2 left many choices open, 0.05-0.1 was best on held-out rows).
    """

    iterations: int
    activation_iterations: int
    batch: int
    lr: float = 5e-2
    scale_lr: float = 5e-3


def block_phases(options: BlockOptions, budget: BlockBudget) -> list[tuple[BlockPhase, int]]:
    """The phases in order, each over all units, with the iterations per unit; those without any are left out."""
    alternating: list[tuple[BlockPhase, int]] = [
        ("weights", budget.iterations),
        ("activations", budget.activation_iterations),
    ]
    found: list[tuple[BlockPhase, int]] = [("joint", budget.iterations)] if options.joint else alternating
    return [(phase, count) for phase, count in found if count > 0]
