"""The integer simulation: the quantized UNet executed as a device does it, int8 x int8 products summed in int32.

Products and sums of integers are exact in floating point as long as they stay below 2^24 (float32) or 2^53
(float64), in any order of summation; each layer takes the narrowest type that is exact for its weights. 16-bit activations
are multiplied in two halves of 8 bits where sums of these are exact in float32, else in float64. The float reading of the
same numbers (`fake_quantize`) is the other mode, so that the two can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.models.architectures import call_network
from dq_toolchain.toolchain.quant.attention import ATTENTION_OPERANDS, PRODUCT_OPERANDS, ProductAttnProcessor
from dq_toolchain.toolchain.quant.layers import Layer, channel_shape, operation_of
from dq_toolchain.toolchain.quant.qparams import IntegerType, activation_type, dequantize, quantize
from dq_toolchain.toolchain.quant.sites import attention_layers, weighted_layers
from dq_toolchain.toolchain.simulation.halves import fits, sums_in_halves
from dq_toolchain.toolchain.simulation.integer_products import (
    Product,
    geometry_of,
    holds,
    integer_product,
    unsigned,
    unsigned_scale,
)
from dq_toolchain.toolchain.simulation.matrix_products import OFFSET
from dq_toolchain.toolchain.simulation.results import KIND, wide_results

Mode = Literal["integer", "fake_quantize"]
ROWS = 256
"""Of weights that are looked at together."""


class StepGroupSwitch:
    """The step group in force, shared by all layers of one simulated network.

    Attributes:
        record: site name -> integers of the last call (float32, zero_point included), while a recording is on.
    """

    def __init__(self) -> None:
        self.current = 0
        self.record: dict[str, Tensor] | None = None


class ActivationTable(nn.Module):
    """The (scale, zero_point) of one site for every step group."""

    scale: Tensor
    zero_point: Tensor

    def __init__(
        self, site: str, scale: Tensor, zero_point: Tensor, kind: IntegerType, switch: StepGroupSwitch
    ) -> None:
        super().__init__()
        self.register_buffer("scale", scale.clone())
        self.register_buffer("zero_point", zero_point.to(torch.float32))
        self.site, self.kind, self.switch = site, kind, switch
        self._zero_points = [int(z) for z in zero_point]

    def integers(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """q - zero_point as float32 integers, and the scale, for the step group in force."""
        scale, zero_point = self.scale[self.switch.current], self.zero_point[self.switch.current]
        q = quantize(x, scale, zero_point, self.kind)
        if self.switch.record is not None:
            self.switch.record[self.site] = q
        return q - zero_point, scale

    def unsigned(self, x: Tensor) -> tuple[Tensor, int, Tensor]:
        """q + OFFSET as uint8, its zero_point, and the scale: ``integers`` in the form of integer products."""
        scale, zero_point = self.scale[self.switch.current], self._zero_points[self.switch.current]
        q = unsigned(x, scale, zero_point, self.kind)
        if self.switch.record is not None:
            self.switch.record[self.site] = q.to(torch.float32) - OFFSET
        return q, zero_point + OFFSET, unsigned_scale(scale, x)

    def rounded(self, x: Tensor) -> Tensor:
        """What the integers of x stand for: ``fake`` with these recorded."""
        integers, scale = self.integers(x)
        return integers * scale

    def fake(self, x: Tensor) -> Tensor:
        """dequantize(quantize(x)) for the step group in force."""
        scale, zero_point = self.scale[self.switch.current], self.zero_point[self.switch.current]
        return dequantize(quantize(x, scale, zero_point, self.kind), scale, zero_point)

    @property
    def largest(self) -> float:
        """Upper bound of |q - zero_point| over all step groups."""
        low, high = self.zero_point - self.kind.qmin, self.kind.qmax - self.zero_point
        return float(torch.maximum(low, high).max())


def accumulator_dtype(bound: float, layer: str, wide: bool = False) -> torch.dtype:
    """The float type in which integer sums of magnitude <= bound are exact; the accumulator itself must hold them.

    Args:
        wide: an operand has 16 bits. int32 has no room for most such sums: float64 is the bound in its place.
    Raises:
        ArtifactError: it cannot; the text names the layer.
    """
    if bound >= (2**53 if wide else 2**31):
        holds = "float64 holds integers below 9.01e+15 exactly" if wide else "int32 holds less than 2.15e+09"
        raise ArtifactError(f"sums of {layer} may reach {bound:.3g}, {holds}; use fewer weight or activation bits")
    return torch.float32 if bound <= 2**24 else torch.float64


class SimulatedLayer(nn.Module):
    """A convolution or Linear in integers (or, in the other mode, in fake-quantized float)."""

    weight_q: Tensor
    weight_scale: Tensor
    bias: Tensor | None

    def __init__(
        self,
        layer: Layer,
        weight_q: Tensor,
        weight_scale: Tensor,
        table: ActivationTable,
        mode: Mode,
        name: str = "the layer",
        result: ActivationTable | None = None,
    ) -> None:
        super().__init__()
        self.table, self.mode, self.result = table, mode, result
        bound = _largest_sum(weight_q) * table.largest
        self.accumulator = accumulator_dtype(bound, name, table.kind.is_wide)
        self.in_halves = table.kind.is_wide and self.accumulator == torch.float64 and fits(bound)
        self.register_buffer("weight_q", weight_q)
        self.register_buffer("weight_scale", weight_scale.view(-1, *[1] * (weight_q.dim() - 1)))
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())
        self.operation = operation_of(layer)
        self.geometry = geometry_of(layer)
        self.takes_bytes = mode == "integer" and not table.kind.is_wide
        self.product = integer_product(self.geometry, weight_q) if self.takes_bytes else None
        self._product_elsewhere: tuple[torch.device, Product | None] | None = None
        self.channel_shape = channel_shape(layer)

    def forward(self, x: Tensor, *unused: object) -> Tensor:
        y = self.float_output(x)
        return y if self.result is None else self.result.rounded(y)

    def float_output(self, x: Tensor) -> Tensor:
        """The layer's result, before it is quantized if it is."""
        if self.mode == "fake_quantize":
            return self.operation(self.table.fake(x), self.weight_q * self.weight_scale, self.bias)
        product = self.product if x.device.type == "cpu" else self._product_on(x.device)
        if product is not None and holds(x):
            q, zero_point, scale = self.table.unsigned(x)
            return product(q, zero_point, scale * self.weight_scale.flatten(), self.bias)
        integers, scale = self.table.integers(x)
        dtype = torch.float32 if self.in_halves else self.accumulator
        weight = self.weight_q.to(dtype)
        if self.in_halves:
            sums = sums_in_halves(lambda half: self.operation(half, weight, None), integers)
        else:
            sums = self.operation(integers.to(dtype), weight, None)
        y = sums.to(torch.float32) * (scale * self.weight_scale).view(self.channel_shape)
        return y if self.bias is None else y + self.bias.view(self.channel_shape)

    def _product_on(self, device: torch.device) -> Product | None:
        """Of a layer that was moved to another device than it was made on."""
        if not self.takes_bytes:
            return None
        if self._product_elsewhere is None or self._product_elsewhere[0] != device:
            self._product_elsewhere = device, integer_product(self.geometry, self.weight_q)
        return self._product_elsewhere[1]


def _largest_sum(weight_q: Tensor) -> float:
    """Of the magnitudes of an output's weights. Some rows at a time: a layer can have a hundred million weights."""
    parts = weight_q.flatten(1).split(ROWS)
    return max(float(part.to(torch.float64).abs_().sum(1).max()) for part in parts)


def _attention_product(mode: Mode) -> Callable[[Attention, str, Tensor, Tensor], Tensor]:
    def product(attention: Attention, which: str, left: Tensor, right: Tensor) -> Tensor:
        first, second = (attention.get_submodule(f"table_{operand}") for operand in PRODUCT_OPERANDS[which])
        assert isinstance(first, ActivationTable)
        assert isinstance(second, ActivationTable)
        if mode == "fake_quantize":
            y = torch.bmm(first.fake(left), second.fake(right))
        else:
            (a, scale_a), (b, scale_b) = first.integers(left), second.integers(right)
            bound, wide = first.largest * second.largest * left.shape[-1], first.kind.is_wide or second.kind.is_wide
            dtype = accumulator_dtype(bound, f"an attention product ({which})", wide)
            if first.kind.is_wide and not second.kind.is_wide and fits(bound):
                sums = sums_in_halves(lambda half: torch.bmm(half, b), a)
            else:
                sums = torch.bmm(a.to(dtype), b.to(dtype))
            y = sums.to(torch.float32) * (scale_a * scale_b)
        result: ActivationTable | None = getattr(attention, f"table_{which}", None)
        return y if result is None else result.rounded(y)

    return product


class SimulatedNetwork(nn.Module):
    """The network of an artifact with every site simulated; call it like the diffusers UNet it replaces."""

    def __init__(self, artifact: Artifact, mode: Mode = "integer") -> None:
        super().__init__()
        self.switch = StepGroupSwitch()
        network = artifact.build_skeleton()
        tables = {
            name: ActivationTable(name, scale, zero_point, KIND, self.switch)
            for name, (scale, zero_point) in wide_results(artifact).items()
        } | {
            site.name: ActivationTable(
                site.name, artifact.scale[:, i], artifact.zero_point[:, i], activation_type(site.bits), self.switch
            )
            for i, site in enumerate(artifact.sites)
        }
        for name, layer in list(weighted_layers(network)):
            if name not in artifact.layers:  # kept in float
                continue
            weights = artifact.layers[name]
            taken, given = tables[f"{name}:input"], tables.get(f"{name}:output")
            network.set_submodule(
                name, SimulatedLayer(layer, weights.weight_q, weights.weight_scale, taken, mode, name, given)
            )
        processor = ProductAttnProcessor(_attention_product(mode))
        for name, attention in attention_layers(network):
            if f"{name}:q" in tables:
                for operand in (*ATTENTION_OPERANDS, *PRODUCT_OPERANDS):
                    if f"{name}:{operand}" in tables:
                        attention.add_module(f"table_{operand}", tables[f"{name}:{operand}"])
                attention.set_processor(processor)
        self.inner = network
        self.group_of_step = artifact.group_of_step

    def set_step(self, k: int) -> None:
        """Switch to the step group of network call k."""
        self.switch.current = self.group_of_step[k]

    @contextmanager
    def recording(self) -> Iterator[dict[str, Tensor]]:
        """The integers of every site of the last call made inside, by site name: what a device must quantize to."""
        self.switch.record = {}
        try:
            yield self.switch.record
        finally:
            self.switch.record = None

    def forward(self, sample: Tensor, timestep: Tensor, return_dict: bool = False, **keywords: Tensor) -> tuple[Tensor]:
        """Keywords flat, as ``call_network`` takes them; always a tuple."""
        return (call_network(self.inner, sample, timestep, keywords),)
