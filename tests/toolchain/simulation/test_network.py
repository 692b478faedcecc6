"""The integer simulation is integer arithmetic: exact against int64, equal to fake-quantized float within rounding."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.formats.artifact import Artifact, LayerWeights
from dq_toolchain.toolchain.quant.attention import ATTENTION_OPERANDS, PRODUCT_OPERANDS
from dq_toolchain.toolchain.quant.qparams import Scheme, activation_type, fp16_exact
from dq_toolchain.toolchain.quant.site import Site
from dq_toolchain.toolchain.quant.sites import attention_layers
from dq_toolchain.toolchain.simulation.network import (
    ActivationTable,
    SimulatedLayer,
    SimulatedNetwork,
    StepGroupSwitch,
    accumulator_dtype,
)
from tests.tiny import noise
from tests.tiny_artifacts import tiny_artifact

KIND = activation_type(8)
TIME, LABEL = torch.tensor([600.0, 30.0]), torch.tensor([2, 7])


def table(scale: float, zero_point: int) -> ActivationTable:
    return ActivationTable(
        "site", fp16_exact(torch.tensor([scale])), torch.tensor([zero_point]), KIND, StepGroupSwitch()
    )


def integers_of(x: Tensor, activation: ActivationTable) -> Tensor:
    """q - zero_point as int64, written out anew."""
    zero_point = activation.zero_point[0].to(torch.int64)
    return (torch.round(x / activation.scale[0]).to(torch.int64) + zero_point).clamp(KIND.qmin, KIND.qmax) - zero_point


def conv_sums(q: Tensor, weight: Tensor, conv: nn.Conv2d) -> Tensor:
    """int64 convolution by gathering patches and one integer matrix product per channel group."""
    above, left = (int(side) for side in conv.padding)
    padded = F.pad(q, (left, left, above, above))
    (kh, kw), (sh, sw), (dh, dw) = conv.kernel_size, conv.stride, conv.dilation
    height, width = (
        (size - d * (k - 1) - 1) // s + 1
        for size, k, s, d in zip(padded.shape[2:], (kh, kw), (sh, sw), (dh, dw), strict=True)
    )
    patches = torch.stack(
        [
            padded[:, :, i * dh : i * dh + sh * (height - 1) + 1 : sh, j * dw : j * dw + sw * (width - 1) + 1 : sw]
            for i in range(kh)
            for j in range(kw)
        ],
        dim=2,
    )
    outs = []
    for part, rows in zip(patches.chunk(conv.groups, 1), weight.to(torch.int64).chunk(conv.groups, 0), strict=True):
        columns = part.flatten(1, 2).flatten(2)
        outs.append((rows.flatten(1) @ columns).view(len(q), len(rows), height, width))
    return torch.cat(outs, 1)


LAYERS: dict[str, nn.Linear | nn.Conv2d] = {
    "linear": nn.Linear(300, 7),
    "linear without bias": nn.Linear(9, 4, bias=False),
    "conv 3x3": nn.Conv2d(5, 6, 3, padding=1),
    "conv, stride, uneven padding": nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2)),
    "conv, dilation, groups": nn.Conv2d(4, 6, 3, padding=2, dilation=2, groups=2),
    "conv 1x1": nn.Conv2d(64, 3, 1, bias=False),
}


@pytest.mark.parametrize("zero_point", [0, 37, -128])
@pytest.mark.parametrize("name", LAYERS)
def test_sums_are_those_of_int64(name: str, zero_point: int) -> None:
    torch.manual_seed(len(name))
    layer = LAYERS[name].requires_grad_(False)
    weight_q = torch.randint(-127, 128, layer.weight.shape).to(torch.int8)
    weight_scale, activation = fp16_exact(torch.rand(len(weight_q)) * 1e-2), table(0.031, zero_point)
    simulated = SimulatedLayer(layer, weight_q, weight_scale, activation, "integer")
    x = (
        torch.randn(3, 300 if name == "linear" else 9)
        if isinstance(layer, nn.Linear)
        else torch.randn(3, layer.in_channels, 8, 7)
    )
    x *= 3
    q = integers_of(x, activation)
    sums = q @ weight_q.to(torch.int64).T if isinstance(layer, nn.Linear) else conv_sums(q, weight_q, layer)
    shape = (-1, 1, 1) if isinstance(layer, nn.Conv2d) else (-1,)
    expected = sums.to(torch.float32) * (activation.scale * weight_scale).view(shape)
    if layer.bias is not None:
        expected = expected + layer.bias.view(shape)
    assert sums.abs().max() > 1000
    assert torch.equal(simulated(x), expected)


def test_the_accumulator_is_the_narrowest_exact_one() -> None:
    assert accumulator_dtype(2.0**24, "x") == torch.float32
    assert accumulator_dtype(2.0**24 + 1, "x") == torch.float64
    assert accumulator_dtype(2.0**31 - 1, "x") == torch.float64
    with pytest.raises(ArtifactError, match=r"conv_in.*int32"):
        accumulator_dtype(2.0**31, "conv_in")


@pytest.mark.parametrize(
    ("inputs", "zero_point", "dtype"),
    [
        (1032, 0, torch.float32),
        (1033, 0, torch.float64),
        (517, 127, torch.float32),
        (519, 127, torch.float64),
    ],
)
def test_sums_beyond_two_to_the_24_are_taken_in_float64(inputs: int, zero_point: int, dtype: torch.dtype) -> None:
    layer = nn.Linear(inputs, 2, bias=False)
    weight_q = torch.full((2, inputs), 127, dtype=torch.int8)
    weight_q[1, 0] = 126
    activation = table(1.0, zero_point)
    simulated = SimulatedLayer(layer, weight_q, torch.ones(2), activation, "integer")
    assert simulated.accumulator == dtype
    x = torch.full((1, inputs), -1e6)  # every activation saturates at qmin: the largest sum there is
    x[0, 1] = -3.0
    q = integers_of(x, activation)
    sums = simulated.operation(q.to(dtype), weight_q.to(dtype), None).to(torch.int64)
    assert torch.equal(sums, q @ weight_q.to(torch.int64).T)
    assert torch.equal(simulated(x), sums.to(torch.float32))


def test_sums_that_int32_cannot_hold_are_refused_with_the_layers_name() -> None:
    inputs = 2**31 // (127 * 128) + 1
    weight_q, layer = torch.full((1, inputs), 127, dtype=torch.int8), nn.Linear(1, 1)
    with pytest.raises(ArtifactError, match=r"mid\.proj.*int32"):
        SimulatedLayer(layer, weight_q, torch.ones(1), table(1.0, 0), "integer", "mid.proj")
    assert (
        SimulatedLayer(layer, weight_q[:, :-1], torch.ones(1), table(1.0, 0), "integer", "mid.proj").accumulator
        == torch.float64
    )


def with_int8_attention(artifact: Artifact) -> Artifact:
    """The artifact with its attention operands quantized too, at scales that fit unit-variance operands."""
    unet = artifact.build_float_unet()
    added = tuple(
        Site(name, operand, "attention", 8, "symmetric")
        for name, _ in attention_layers(unet)
        for operand in ATTENTION_OPERANDS
    )
    row = fp16_exact(torch.tensor([1 / 127 if site.operand == "probs" else 0.02 for site in added]))
    scale = row.expand(len(artifact.scale), -1)
    return dataclasses.replace(
        artifact,
        sites=(*artifact.sites, *added),
        scale=torch.cat([artifact.scale, scale], 1),
        zero_point=torch.cat([artifact.zero_point, torch.zeros_like(scale, dtype=torch.int32)], 1),
    )


CASES = [
    pytest.param(scheme, bits, attention, id=f"{scheme}-W{bits}-{'int8' if attention else 'float'} attention")
    for scheme, bits, attention in (
        ("symmetric", 8, False),
        ("affine", 8, False),
        ("symmetric", 4, True),
        ("affine", 8, True),
    )
]


def both(scheme: Scheme, bits: int, attention: bool) -> tuple[SimulatedNetwork, SimulatedNetwork]:
    artifact, _ = tiny_artifact(scheme=scheme, weight_bits=bits)
    artifact = with_int8_attention(artifact) if attention else artifact
    return SimulatedNetwork(artifact, "integer"), SimulatedNetwork(artifact, "fake_quantize")


@pytest.mark.parametrize(("scheme", "bits", "attention"), CASES)
@torch.no_grad()
def test_layer_by_layer_integers_and_fake_quantized_float_agree(scheme: Scheme, bits: int, attention: bool) -> None:
    integer, fake = both(scheme, bits, attention)
    twins = dict(fake.named_modules())
    compared: list[str] = []

    def compare(name: str, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        expected = twins[name](*inputs)
        assert (out - expected).norm() <= 1e-5 * expected.norm(), name
        compared.append(name)

    for name, module in integer.named_modules():
        if isinstance(module, SimulatedLayer):
            module.register_forward_hook(lambda _m, inputs, out, name=name: compare(name, inputs, out))
    for k in range(4):
        integer.set_step(k)
        fake.set_step(k)
        integer(noise(2, seed=k), TIME, class_labels=LABEL)
    assert len(compared) == 4 * sum(isinstance(m, SimulatedLayer) for m in integer.modules())


@pytest.mark.parametrize(("scheme", "bits", "attention"), CASES)
@torch.no_grad()
def test_the_whole_network_differs_by_rounding_flips_only(scheme: Scheme, bits: int, attention: bool) -> None:
    """Equal to float rounding up to the first flipped integer; what one flip grows into stays within quantization error.

    Whether a value lands on a rounding boundary, and so flips, depends on the machine's float kernels.
    """
    artifact, fp32 = tiny_artifact(scheme=scheme, weight_bits=bits)
    artifact = with_int8_attention(artifact) if attention else artifact
    integer, fake = SimulatedNetwork(artifact, "integer"), SimulatedNetwork(artifact, "fake_quantize")
    inputs_of: dict[int, list[tuple[SimulatedLayer, Tensor]]] = {}
    x = noise(2, seed=5)
    outs = []
    for network in (integer, fake):
        seen = inputs_of.setdefault(id(network), [])
        for module in network.modules():
            if isinstance(module, SimulatedLayer):
                module.register_forward_pre_hook(lambda m, inputs, seen=seen: seen.append((m, inputs[0])))
        outs.append(network(x, TIME, class_labels=LABEL)[0])
    flipped = None
    for (left, a), (right, b) in zip(inputs_of[id(integer)], inputs_of[id(fake)], strict=True):
        assert (a - b).norm() <= 1e-5 * a.norm()
        flips = (left.table.integers(a)[0] - right.table.integers(b)[0]).abs()
        if flips.any():
            flipped = flips
            break
    if flipped is None:
        torch.testing.assert_close(*outs, rtol=1e-5, atol=1e-5)
    else:
        assert int(flipped.max()) == 1
        assert int(flipped.count_nonzero()) <= 0.01 * flipped.numel()
        quantization = (outs[0] - fp32(x, TIME, class_labels=LABEL)[0]).norm()
        assert (outs[0] - outs[1]).norm() < quantization


@torch.no_grad()
def test_attention_products_are_those_of_int64() -> None:
    artifact, _ = tiny_artifact(scheme="affine")
    unet = SimulatedNetwork(with_int8_attention(artifact))
    name, attention = next(iter(attention_layers(unet.inner)))
    processor: Any = attention.processor
    torch.manual_seed(1)
    for which, shape in (("scores", (4, 16, 8)), ("values", (4, 16, 16))):
        left, right = torch.rand(shape) if which == "values" else torch.randn(shape), torch.randn(4, shape[-1], 8)
        tables: list[Any] = [attention.get_submodule(f"table_{operand}") for operand in PRODUCT_OPERANDS[which]]
        a, b = (integers_of(x, t) for x, t in zip((left, right), tables, strict=True))
        scale = tables[0].scale[0] * tables[1].scale[0]
        assert torch.equal(processor.product(attention, which, left, right), (a @ b).to(torch.float32) * scale), name


@torch.no_grad()
def test_the_step_group_in_force_decides_the_parameters() -> None:
    artifact, _ = tiny_artifact(steps=4, step_groups=2)
    changed = dataclasses.replace(artifact, scale=torch.stack([artifact.scale[0], fp16_exact(artifact.scale[1] * 3)]))
    ours, theirs = SimulatedNetwork(artifact), SimulatedNetwork(changed)
    outs = []
    for k in range(4):
        for network in (ours, theirs):
            network.set_step(k)
        outs.append([network(noise(2), TIME, class_labels=LABEL)[0] for network in (ours, theirs)])
    assert [torch.equal(a, b) for a, b in outs] == [True, True, False, False]


@torch.no_grad()
def test_one_changed_integer_changes_the_output() -> None:
    artifact, _ = tiny_artifact()
    weights = copy.copy(artifact.layers["conv_out"])
    changed = weights.weight_q.clone()
    changed[0, 0, 1, 1] += -1 if changed[0, 0, 1, 1] > 0 else 1
    other = dataclasses.replace(
        artifact, layers={**artifact.layers, "conv_out": LayerWeights(changed, weights.weight_scale)}
    )
    outs = [SimulatedNetwork(a)(noise(2), TIME, class_labels=LABEL)[0] for a in (artifact, other)]
    assert not torch.equal(*outs)
