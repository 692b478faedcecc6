"""AdaRound on one quantized layer: every weight learns whether to round down or up, by an annealed soft choice.

While it learns, the layer computes with the soft weight; at the end the choice is written into the layer's own
quantizer, so that everything after (forward passes, export, a further fit) sees plain integers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dq_toolchain.calibrate.network.fake_quant import QuantizedLayer

GAMMA, ZETA = -0.1, 1.1
PENALTY = 0.01
BETA = (20.0, 2.0)
WARM_UP = 0.2


class SoftRounding:
    """floor(w / s) + h(V), clamped to the layer's integer range, with h a stretched sigmoid clipped to [0, 1].

    Source: Nagel et al. 2020, eq. 22-24, with BRECQ's constants. Differs: the scale is the quantizer's fp16-exact
    one, so that the network being optimised is one that a device can hold; gradients stop at the range's ends.
    """

    def __init__(self, layer: QuantizedLayer) -> None:
        """Starts where h(V) is the fraction of w / s, i.e. at the float weight (inside the range)."""
        quantizer = layer.weight_quantizer
        ratio = quantizer.ratio
        if quantizer.offset is not None:
            ratio = ratio + quantizer.offset.detach()
        self.layer, self.kind = layer, quantizer.kind
        self.floor = ratio.floor()
        stretched = ((ratio - self.floor) - GAMMA) / (ZETA - GAMMA)
        self.v = nn.Parameter(stretched.logit())
        """Same shape as the weight, float32: what is learned."""
        self.scale = quantizer.scale.view(-1, *[1] * (ratio.dim() - 1))

    def up(self) -> Tensor:
        """h(V), the soft choice of rounding up, in [0, 1], shape of the weight."""
        return (torch.sigmoid(self.v) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)

    def apply(self) -> Tensor:
        """Make the layer compute with the soft weight. Returns h(V), for the penalty."""
        up = self.up()
        self.layer.fix_weight((self.floor + up).clamp(self.kind.qmin, self.kind.qmax) * self.scale, rounded=False)
        return up

    @torch.no_grad()
    def integers(self) -> Tensor:
        """The hard choice, float32 holding integers of the kind's range, shape of the weight."""
        return (self.floor + (self.v >= 0)).clamp(self.kind.qmin, self.kind.qmax)

    @torch.no_grad()
    def commit(self) -> None:
        """Write the hard choice into the layer's quantizer; its weight is no longer fixed."""
        self.layer.weight_quantizer.choose(self.integers())
        self.layer.fix_weight(None, rounded=False)


def penalty(up: Tensor, done: float) -> Tensor:
    """0.01 * sum(1 - |2h - 1|^beta), () float32, which drives every h to 0 or 1.

    Args:
        up: h(V), any shape.
        done: share of the iterations done, 0-1; nothing is asked for in the first fifth, then beta falls from 20 to 2.
    """
    if done < WARM_UP:
        return up.new_zeros(())
    high, low = BETA
    beta = low + (high - low) * (1 - (done - WARM_UP) / (1 - WARM_UP))
    return PENALTY * (1 - (2 * up - 1).abs().pow(beta)).sum()
