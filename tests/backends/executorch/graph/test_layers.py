"""One layer at a time: the runtime's int8 kernels against the integer simulation, and the formula behind sentinels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dq_toolchain.backends.common.call import Call
from dq_toolchain.backends.executorch.graph.layers import (
    Geometry,
    OfRow,
    QParams,
    RangesInput,
    SentinelLayer,
    StaticLayer,
    range_table,
    xnnpack_qparams,
)
from dq_toolchain.backends.executorch.graph.program import export, lower_methods
from dq_toolchain.backends.executorch.runtime.device import Device
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import LayerWeights
from dq_toolchain.toolchain.quant.qparams import (
    SMALLEST_SCALE,
    activation_type,
    quantize,
    range_to_qparams,
    weight_type,
)
from dq_toolchain.toolchain.simulation.network import ActivationTable, SimulatedLayer, StepGroupSwitch

SCALE = torch.tensor([[0.02001953125], [0.0130157470703125], [0.0300140380859375]])
ZERO_POINT = torch.tensor([[0], [17], [-90]])
TIME = torch.zeros(1)


class Net(nn.Module):
    """Layers in a row, called like a UNet."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, sample: Tensor, timestep: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        return (self.layers(sample),)


def integer_weights(layer: nn.Conv1d | nn.Conv2d | nn.Linear, bits: int) -> LayerWeights:
    flat, kind = layer.weight.detach().flatten(1), weight_type(bits)
    scale, _ = range_to_qparams(flat.amin(1), flat.amax(1), kind, "symmetric")
    view = scale.view(-1, *[1] * (layer.weight.dim() - 1))
    return LayerWeights(quantize(layer.weight.detach(), view, 0, kind).to(torch.int8), scale)


def layers() -> dict[str, tuple[nn.Conv1d | nn.Conv2d | nn.Linear, tuple[int, ...], int]]:
    """Name -> layer, input shape, weight bits: every shape of layer that a UNet has."""
    torch.manual_seed(0)
    return {
        "conv3x3": (nn.Conv2d(16, 24, 3, padding=1), (1, 16, 8, 8), 8),
        "conv3x3_stride2": (nn.Conv2d(16, 24, 3, padding=1, stride=2), (1, 16, 8, 8), 8),
        "conv1x1": (nn.Conv2d(24, 16, 1), (1, 24, 8, 8), 8),
        "conv3x3_one_channel": (nn.Conv2d(1, 24, 3, padding=1), (1, 1, 8, 8), 8),
        "conv3x3_one_pixel": (nn.Conv2d(8, 8, 3, padding=1, bias=False), (1, 8, 1, 1), 8),
        "conv3x3_4bit": (nn.Conv2d(16, 24, 3, padding=1), (1, 16, 8, 8), 4),
        "conv1d": (nn.Conv1d(16, 24, 3, padding=1), (1, 16, 12), 8),
        "conv1d_stride2": (nn.Conv1d(16, 24, 4, padding=1, stride=2), (1, 16, 12), 8),
        "conv1d_kernel1": (nn.Conv1d(24, 16, 1), (1, 24, 12), 8),
        "linear_tokens": (nn.Linear(32, 48, bias=False), (1, 64, 32), 8),
        "linear_vector": (nn.Linear(16, 64), (1, 16), 8),
        "linear_4bit": (nn.Linear(32, 48), (1, 64, 32), 4),
        "linear_4bit_odd": (nn.Linear(15, 48), (1, 64, 15), 4),
    }


@pytest.fixture(scope="module")
def device() -> Device:
    """All layers as methods of one program."""
    ranges, exported = range_table(SCALE, ZERO_POINT), {}
    for name, (layer, shape, bits) in layers().items():
        port = RangesInput()
        made = SentinelLayer(integer_weights(layer, bits), layer.bias, Geometry.of(layer, shape), bits, 0, port)
        net = Net(OfRow(made) if isinstance(layer, nn.Conv1d) else made)
        exported[name] = export(net.eval(), Call(torch.zeros(shape), TIME, {}), ranges[:1], port)
    return Device(lower_methods(exported), tuple(exported))


@pytest.mark.parametrize("group", range(3))
@pytest.mark.parametrize("name", layers())
def test_sentinel_layer_equals_integer_simulation(device: Device, name: str, group: int) -> None:
    """Float32 rounding only (1e-5 of the largest output): less than one integer step of one input in any place.

    The 1x1 convolution fails by 1e-2 if its range is not present in every pixel.
    """
    layer, shape, bits = layers()[name]
    weights, switch = integer_weights(layer, bits), StepGroupSwitch()
    switch.current = group
    table = ActivationTable("site", SCALE[:, 0], ZERO_POINT[:, 0], activation_type(8), switch)
    simulated = SimulatedLayer(layer, weights.weight_q, weights.weight_scale, table, "integer")
    x = torch.randn(shape, generator=torch.Generator().manual_seed(group)) * 1.5
    out = device(name, (x, TIME, range_table(SCALE, ZERO_POINT)[group : group + 1]))
    expected = simulated(x)
    assert float((out - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_ranges_give_scale_and_zero_point_exactly() -> None:
    """Every fp16 mantissa, seven exponents, every zero_point: XNNPACK's float32 formula returns what went in."""
    mantissas = 1 + np.arange(1024, dtype=np.float32) / 1024
    scale = torch.from_numpy(np.concatenate([mantissas * np.float32(2.0**e) for e in (-14, -10, -7, -5, -3, 0, 5)]))
    assert float(scale.min()) == SMALLEST_SCALE
    for zero_point in range(-128, 128):
        pair = range_table(scale[None], torch.full((1, len(scale)), zero_point, dtype=torch.int32))
        got, zero = xnnpack_qparams(pair[0, 0::2], pair[0, 1::2])
        assert int((zero != zero_point).sum()) == 0
        assert float(((got - scale) / scale).abs().max()) <= 2.0**-23  # one unit in the last place of float32


def test_two_layers_may_share_one_bias_object() -> None:
    """XNNPACK quantizes a shared bias with the first layer's scale only: ours are cloned, on every layer."""
    torch.manual_seed(1)
    convs = [nn.Conv2d(8, 8, 3, padding=1) for _ in range(2)]
    bias = torch.randn(8)
    results, modules = [], []
    for conv, scale in zip(convs, (0.05, 0.0125), strict=True):
        geometry = Geometry.of(conv, (1, 8, 8, 8))
        modules.append(StaticLayer(integer_weights(conv, 8), bias, geometry, 8, QParams(scale, 3), QParams(0.05, -5)))
    assert modules[0].bias is not None
    assert modules[1].bias is not None
    assert modules[0].bias.data_ptr() != modules[1].bias.data_ptr() != bias.data_ptr()
    net, x = Net(*modules).eval(), torch.randn(1, 8, 8, 8)
    out = Device(lower_methods({"forward": export(net, Call(x, TIME, {}))}), ("forward",))("forward", (x, TIME))
    results = net(x, TIME)[0]
    assert float((out - results).abs().max()) <= 2 * 0.05  # one step of the last output and what one step before does
    assert float((out - results).abs().mean()) < 0.005


class _UnmarkedRanges(RangesInput):
    """Ranges without the channels-last mark: XNNPACK's layout pass then gets the clamped picture's shape wrong."""

    def ends(self, index: int, dims: int) -> tuple[Tensor, Tensor]:
        return super().ends(index, 2)


def test_a_program_with_a_layout_fault_is_an_error_when_executed() -> None:
    """It exports, lowers and loads without complaint; only execution shows it, hence the smoke test after lowering."""
    torch.manual_seed(0)
    port, ranges = _UnmarkedRanges(), range_table(SCALE, ZERO_POINT)[:1]
    convs = (nn.Conv2d(16, 24, 3, padding=1), nn.Conv2d(24, 16, 3, padding=1))
    shapes = ((1, 16, 8, 8), (1, 24, 8, 8))
    net = Net(
        *(
            SentinelLayer(integer_weights(c, 8), c.bias, Geometry.of(c, s), 8, 0, port)
            for c, s in zip(convs, shapes, strict=True)
        )
    )
    x = torch.randn(shapes[0])
    device = Device(lower_methods({"forward": export(net.eval(), Call(x, TIME, {}), ranges, port)}), ("forward",))
    with pytest.raises(BackendError, match="cannot execute method 'forward'"):
        device("forward", (x, TIME, ranges))
