"""Text encoders and decoders in int8: XNNPACK's dynamic kernels, with the range of each token or, for convolutions, a given one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dq_toolchain.backends.common.quiet import quiet
from dq_toolchain.backends.common.vendors import decomposed
from dq_toolchain.backends.executorch.graph.layers import EPSILON, Geometry, IntegerLayer, RangesInput, SentinelLayer
from dq_toolchain.backends.executorch.graph.passes import drop_divisions_by_one, spell_out_tanh_gelu
from dq_toolchain.backends.executorch.graph.program import lower_methods
from dq_toolchain.backends.executorch.graph.rewrites import rewrite
from dq_toolchain.backends.executorch.vendor import NOISE
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import LayerWeights
from dq_toolchain.toolchain.parts.part import Part, example
from dq_toolchain.toolchain.quant.hooks import hooks

METHOD = "forward"
MARGIN = 1.25
"""Of a convolution's range: pictures of other prompts reach further than those that were measured."""


class DynamicLinear(IntegerLayer):
    """A Linear whose input is quantized with the range of each token: (1, T, in) or (T, in) -> float32."""

    def __init__(self, weights: LayerWeights, bias: Tensor | None, geometry: Geometry) -> None:
        super().__init__(weights, bias, geometry, 8, 0)

    def forward(self, x: Tensor) -> Tensor:
        ops = decomposed()
        scale, zero = ops.choose_qparams.tensor(x, -128, 127, EPSILON, torch.int8)
        quantized = ops.quantize_per_tensor.tensor(x, scale, zero, -128, 127, torch.int8)
        return self.apply_weights(ops.dequantize_per_tensor.tensor(quantized, scale, zero, -128, 127, torch.int8))


class IntegerEmbedding(nn.Module):
    """Rows of an int8 table, times the scale of each row."""

    weight_q: Tensor
    weight_scale: Tensor

    def __init__(self, weights: LayerWeights) -> None:
        super().__init__()
        self.register_buffer("weight_q", weights.weight_q)
        self.register_buffer("weight_scale", weights.weight_scale.view(-1, 1))

    def forward(self, ids: Tensor) -> Tensor:
        rows = nn.functional.embedding(ids, self.weight_q).to(torch.float32)
        return rows * nn.functional.embedding(ids, self.weight_scale)


def part_program(part: Part) -> bytes:
    """The .pte of a part. Raises BackendError: executorch refuses it."""
    module = rewrite(part.build())
    inputs = tuple(example(port) for port in part.inputs)
    port = RangesInput()
    geometries = _geometries(module, part, inputs)
    for index, (name, weights) in enumerate(part.layers.items()):
        layer = module.get_submodule(name)
        module.set_submodule(name, _integer(layer, weights, geometries[name], index, port))
    with torch.no_grad(), quiet(NOISE):
        exported = torch.export.export(_WithRanges(module, port, range_row(part)).eval(), inputs, strict=False)
    spell_out_tanh_gelu(exported)
    drop_divisions_by_one(exported)
    return lower_methods({METHOD: exported})


def range_row(part: Part) -> Tensor:
    """(1, 2L) float32: lo, hi of the input of every layer, of which convolutions use theirs."""
    return torch.stack([part.ranges[name][:2] * MARGIN for name in part.layers]).reshape(1, -1)


class _WithRanges(nn.Module):
    """A module whose convolutions' ranges are constants of the program."""

    ranges: Tensor

    def __init__(self, module: nn.Module, port: RangesInput, ranges: Tensor) -> None:
        super().__init__()
        self.module, self.port = module, port
        self.register_buffer("ranges", ranges)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        self.port.set(self.ranges)
        out: tuple[Tensor, ...] = self.module(*inputs)
        return out


def _integer(layer: nn.Module, weights: LayerWeights, geometry: Geometry, index: int, port: RangesInput) -> nn.Module:
    if isinstance(layer, nn.Embedding):
        return IntegerEmbedding(weights)
    bias = layer.bias
    assert bias is None or isinstance(bias, Tensor)
    if isinstance(layer, nn.Linear):
        return DynamicLinear(weights, bias, geometry)
    return SentinelLayer(weights, bias, geometry, 8, index, port)


@torch.no_grad()
def _geometries(module: nn.Module, part: Part, inputs: tuple[Tensor, ...]) -> dict[str, Geometry]:
    found: dict[str, Geometry] = {}

    def look(name: str, layer: nn.Module, x: Tensor) -> None:
        found[name] = Geometry.of(layer, x.shape) if isinstance(layer, nn.Conv2d | nn.Linear) else Geometry((), None)

    layers = {name: module.get_submodule(name) for name in part.layers}
    strange = next((n for n, x in layers.items() if not isinstance(x, nn.Conv2d | nn.Linear | nn.Embedding)), None)
    if strange is not None:
        raise BackendError(
            f"{part.name}: {strange} is a {type(layers[strange]).__name__}, target 'executorch' takes Conv2d and Linear; export "
            "with --unet-only"
        )
    with hooks(
        layer.register_forward_pre_hook(lambda each, given, name=name: look(name, each, given[0]))
        for name, layer in layers.items()
    ):
        module(*inputs)
    return found
