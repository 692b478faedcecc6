"""Trainable fake-quantization: what the fit optimises, in the float form that gradients pass through.

Straight-through rounding everywhere; scales are learned as logarithms and rounded to fp16 inside the forward pass,
so that the network being fitted always computes with numbers that a device can hold.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from dq_toolchain.calibrate.network.channels_last import laid_out
from dq_toolchain.calibrate.network.kernel_choice import usable
from dq_toolchain.calibrate.network.kernels import QuantizeActivation, QuantizeWeight
from dq_toolchain.calibrate.network.straight_through import FakeQuantize, FakeQuantizeWeight, fp16_scale, per_channel
from dq_toolchain.toolchain.disk.spill import Spill
from dq_toolchain.toolchain.quant.attention import PRODUCT_OPERANDS, ProductAttnProcessor
from dq_toolchain.toolchain.quant.layers import Layer, operation_of
from dq_toolchain.toolchain.quant.qparams import SMALLEST_SCALE, SMALLEST_WEIGHT_SCALE, IntegerType, fp16_exact
from dq_toolchain.toolchain.simulation.integer_products import (
    Product,
    geometry_of,
    holds,
    integer_product,
    unsigned,
    unsigned_scale,
)
from dq_toolchain.toolchain.simulation.matrix_products import OFFSET
from dq_toolchain.toolchain.simulation.network import StepGroupSwitch


class ActivationQuantizer(nn.Module):
    """One site: a learned log-scale and a fixed zero_point per step group, each (G,) float32."""

    zero_point: Tensor

    def __init__(self, scale: Tensor, zero_point: Tensor, kind: IntegerType, switch: StepGroupSwitch) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(scale.log())
        self.register_buffer("zero_point", zero_point.to(torch.float32))
        self.kind, self._zero_points = kind, [int(z) for z in zero_point]
        self.lowest = [kind.qmin - float(z) for z in zero_point]
        self.highest = [kind.qmax - float(z) for z in zero_point]
        self.switch = switch
        self.float_share = 0.0
        """Share of elements left in float, drawn anew in every pass (QDrop, Wei et al. 2022); 1 leaves the site out."""
        self.generator: torch.Generator | None = None
        """What draws them, on the device of x; None is torch's own."""

    def forward(self, x: Tensor) -> Tensor:
        """Fake-quantized x, same shape. LSQ's 1/sqrt(N) factor is left out: Adam on the logarithm is scale-free."""
        if self.float_share >= 1.0:
            return x
        g = self.switch.current
        ends = self.lowest[g], self.highest[g]
        y: Tensor
        if usable(x):
            y = QuantizeActivation.apply(x.float(), self.log_scale, g, SMALLEST_SCALE, *ends)  # type: ignore[no-untyped-call]
        else:
            y = FakeQuantize.apply(x, fp16_scale(self.log_scale[g : g + 1]), *ends)  # type: ignore[no-untyped-call]
        if self.float_share > 0.0:
            y = torch.where(torch.rand(x.shape, generator=self.generator, device=x.device) < self.float_share, x, y)
        return y

    @torch.no_grad()
    def unsigned(self, x: Tensor) -> tuple[Tensor, int, Tensor]:
        """The integers of x as integer products take them: uint8, their zero_point, and the scale, (1,) or (B, 1)."""
        g = self.switch.current
        scale, zero_point = fp16_exact(self.log_scale[g : g + 1].exp()), self._zero_points[g]
        return unsigned(x, scale, zero_point, self.kind), zero_point + OFFSET, unsigned_scale(scale, x)


class WeightQuantizer(nn.Module):
    """The integer weights of one layer: learned per-channel log-scale and, optionally, a learned rounding offset.

    q = clamp(round(w / s0 + offset)) with |offset| <= 1/2 chooses between floor and ceil of w / s0, which is
    AdaRound's choice (Nagel et al. 2020, eq. 21). It differs in how the choice is learned: hard rounding in every
    forward pass with a straight-through gradient, not an annealed sigmoid, because errors that accumulate over
    several steps are those of the rounded network.

    s0 is the scale that was searched for; the learned scale only multiplies the integers. Were it the divisor too,
    every step of the scale would flip integers all over the layer, and their noise drowns what a fit gains.

    The float weight is the layer's own tensor, not a copy: memory holds a large network's weights once.
    """

    weight: Tensor
    searched: Tensor
    """s0, (out,)."""

    def __init__(self, weight: Tensor, scale: Tensor, kind: IntegerType, learned_rounding: bool) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach())
        self.register_buffer("searched", scale.clone())
        self.spill: Spill | None = None
        """Where chosen integers go; None: memory."""
        self.chosen: Tensor | None = None
        """int8 integers that stand in the place of w / s0 once they were chosen for good, shape of the weight."""
        self.log_scale = nn.Parameter(scale.log())
        self.offset = nn.Parameter(torch.zeros_like(weight)) if learned_rounding else None
        self.kind = kind

    @property
    def scale(self) -> Tensor:
        """The learned scale as it is exported, (out,) float32 fp16-exact."""
        return fp16_exact(self.log_scale.detach().exp(), SMALLEST_WEIGHT_SCALE)

    @property
    def ratio(self) -> Tensor:
        """What is rounded, in integer steps, float32: w / s0, or the integers that were chosen."""
        return self.weight / per_channel(self.searched, self.weight) if self.chosen is None else self.chosen.float()

    @torch.no_grad()
    def choose(self, integers: Tensor) -> None:
        """From now on the weight is these integers of the kind's range, shape of the weight, and any learned offset begins at 0."""
        self.chosen = integers.to(torch.int8) if self.spill is None else self.spill.keep(integers, torch.int8)
        if self.offset is not None:
            self.offset.zero_()

    @torch.no_grad()
    def begin_near(self, integers: Tensor, margin: float) -> None:
        """Rounding is learned from these integers on: what is rounded is from now on the weight brought within
        ``margin`` of an integer step of them.

        A copy of the weight. Offsets, which begin at 0, still reach the integers on either side.
        """
        ratio = self.ratio
        near = torch.maximum(torch.minimum(ratio, integers + margin), integers - margin)
        self.weight = near * per_channel(self.searched, self.weight)

    def forward(self) -> Tensor:
        """The dequantized weight, shape of the layer's."""
        given = self.weight if self.chosen is None else self.chosen, self.searched, self.offset
        ends = self.kind.qmin, self.kind.qmax
        weight: Tensor
        if usable(self.searched):  # a weight that is not at work may be on the host
            weight = QuantizeWeight.apply(*given, self.log_scale, SMALLEST_WEIGHT_SCALE, *ends)  # type: ignore[no-untyped-call]
        else:
            scale = fp16_scale(self.log_scale, SMALLEST_WEIGHT_SCALE)
            weight = FakeQuantizeWeight.apply(*given, scale, *ends)  # type: ignore[no-untyped-call]
        return weight

    @torch.no_grad()
    def export(self) -> tuple[Tensor, Tensor]:
        """int8 integers (shape of the weight) and float32 fp16-exact scale (out,)."""
        ratio = self.ratio if self.offset is None else self.ratio + self.offset
        integers = ratio.clamp(self.kind.qmin, self.kind.qmax).round_()
        return integers.to(torch.int8), self.scale


@torch.no_grad()
def clamp_offsets(quantizers: Iterable[WeightQuantizer]) -> None:
    """Keep every choice between floor and ceil, all of them at once. Called after every optimizer step."""
    offsets: list[Tensor] = [quantizer.offset for quantizer in quantizers if quantizer.offset is not None]
    if offsets:
        torch._foreach_clamp_min_(offsets, -0.5)
        torch._foreach_clamp_max_(offsets, 0.5)


class QuantizedLayer(nn.Module):
    """A convolution or Linear whose input and weight are fake-quantized; its bias stays float and is learned too.

    Rounded weights shift the mean of every output channel, at every step alike, which is what accumulates.

    Passes that need no gradient, with the quantizer's weight fixed, are computed in integers where the processor does
    that exactly: the same numbers but for the order of float sums, several times sooner.
    """

    def __init__(self, layer: Layer, activation: ActivationQuantizer, weight: WeightQuantizer) -> None:
        super().__init__()
        self.activation, self.weight_quantizer = activation, weight
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone())
        self.output: ActivationQuantizer | None = None
        """Of what the layer gives, where that is a site too."""
        self.operation, self.geometry = operation_of(layer), geometry_of(layer)
        self.fixed_weight: Tensor | None = None
        """A weight to be used in every pass; None computes the fake-quantized one in each."""
        self.keeps_integers = True
        """Whether integers are made once for all passes, not in each; to keep those of all layers takes memory."""
        self._integers: tuple[Product | None, Tensor] | None = None
        self._may_use_integers = False

    def fix_weight(self, weight: Tensor | None, *, rounded: bool) -> None:
        """Use this weight in every pass from now on; None: what the weight quantizer gives in each.

        Args:
            rounded: it is what the weight quantizer gives, and the quantizer stays as it is until the next call.
        """
        self.fixed_weight, self._integers, self._may_use_integers = weight, None, rounded

    def forward(self, x: Tensor, *unused: object) -> Tensor:
        y = self._float_output(x)
        return y if self.output is None else self.output(y)

    def _float_output(self, x: Tensor) -> Tensor:
        x = laid_out(x)
        takes_bytes = not self.activation.kind.is_wide and self.activation.float_share == 0.0
        if self._may_use_integers and takes_bytes and not torch.is_grad_enabled():
            product, scale = self._product()
            if product is not None and holds(x):
                q, zero_point, step = self.activation.unsigned(x)
                return product(q, zero_point, step * scale, self.bias)
        weight = self.weight_quantizer() if self.fixed_weight is None else self.fixed_weight
        return self.operation(self.activation(x), weight, self.bias)

    def _product(self) -> tuple[Product | None, Tensor]:
        if self._integers is not None:
            return self._integers
        weight_q, scale = self.weight_quantizer.export()
        made = integer_product(self.geometry, weight_q), scale
        self._integers = made if self.keeps_integers else None
        return made


def quantized_product(attention: Attention, which: str, left: Tensor, right: Tensor) -> Tensor:
    """q @ k^T or probs @ v with both operands, and the result if that is a site, fake-quantized by the modules that ``insert``
    put on the attention."""
    first, second = PRODUCT_OPERANDS[which]
    y = torch.bmm(getattr(attention, f"quantizer_{first}")(left), getattr(attention, f"quantizer_{second}")(right))
    result: ActivationQuantizer | None = getattr(attention, f"quantizer_{which}", None)
    return y if result is None else result(y)


QUANTIZED_ATTENTION = ProductAttnProcessor(quantized_product)
