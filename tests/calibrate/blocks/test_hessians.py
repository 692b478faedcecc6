"""Hessians: sums over the inputs of each layer, the same however layers are cut into parts."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from dq_toolchain.calibrate.blocks import hessians
from dq_toolchain.calibrate.blocks.evaluations import Evaluations
from dq_toolchain.calibrate.blocks.hessians import bytes_of, hessians_of, in_parts
from dq_toolchain.calibrate.blocks.second_order import blocks_of, input_patches
from dq_toolchain.toolchain.models.activations import Ledger
from dq_toolchain.toolchain.models.architectures import call_network
from dq_toolchain.toolchain.quant.layers import Layer
from dq_toolchain.toolchain.quant.sites import weighted_layers
from dq_toolchain.toolchain.sampler.conditioning import Conditioning
from tests.calibrate.blocks.test_units import Tiny, tiny

CPU = torch.device("cpu")


def layers_of(case: Tiny) -> dict[str, Layer]:
    return dict(weighted_layers(case.fp32))


def summed(case: Tiny, layers: dict[str, Layer]) -> dict[str, list[Tensor]]:
    return hessians_of(case.fp32, layers, case.rows, 5, CPU, seed=3)


def test_they_are_sums_over_the_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hessians, "POSITIONS", 10**6)
    case = tiny(samples=2)
    layers = layers_of(case)
    seen: dict[str, Tensor] = {}

    def note(name: str, layer: nn.Module, x: Tensor) -> None:
        seen[name] = input_patches(layer, x).flatten(0, 1).transpose(0, 1)  # type: ignore[arg-type]

    handles = [
        layer.register_forward_pre_hook(lambda module, args, name=name: note(name, module, args[0]))
        for name, layer in layers.items()
    ]
    with torch.no_grad():
        call_network(case.fp32, case.rows.sample, case.rows.timestep, case.rows.keywords)
    for handle in handles:
        handle.remove()
    found = summed(case, layers)
    assert found.keys() == layers.keys() == seen.keys()
    for name, blocks in found.items():
        expected = seen[name].transpose(1, 2) @ seen[name]
        (block,) = blocks
        torch.testing.assert_close(block, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert all(not module._forward_pre_hooks for module in case.fp32.modules())


def test_layers_in_parts_have_the_same_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hessians, "POSITIONS", 7)
    case = tiny(samples=2)
    layers = layers_of(case)
    assert in_parts(layers) == [list(layers)]
    whole = summed(case, layers)
    room = 3 * max(bytes_of(layer) for layer in layers.values())
    monkeypatch.setattr(hessians, "ROOM", room)
    parts = in_parts(layers)
    assert len(parts) > 1
    assert [name for part in parts for name in part] == list(layers)
    for part in parts:
        chosen = {name: layers[name] for name in part}
        assert sum(bytes_of(layer) for layer in chosen.values()) <= room
        for name, blocks in summed(case, chosen).items():
            assert all(torch.equal(a, b) for a, b in zip(blocks, whole[name], strict=True))


@pytest.mark.parametrize("batch", [1, 6])
def test_memory_is_that_of_a_pass_and_of_the_sums(batch: int) -> None:
    """On shapes alone: what is drawn of an image is little, all patches of a layer are nine times its input."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        network = UNet2DModel(
            sample_size=64, in_channels=3, out_channels=3, block_out_channels=(32, 64), layers_per_block=1,
            down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"), norm_num_groups=8,
        ).requires_grad_(False)  # fmt: skip
        layers = dict(weighted_layers(network))
        none = torch.zeros(batch, dtype=torch.int64)
        rows = Evaluations(
            sample=torch.empty(batch, 3, 64, 64),
            timestep=torch.empty(batch),
            step=none,
            conditioning=Conditioning(),
            place=none,
        )
        with torch.no_grad(), Ledger() as one:
            call_network(network, rows.sample[:1], rows.timestep[:1], {})
        with Ledger() as found:
            hessians_of(network, layers, rows, batch, CPU, seed=3)
    assert found.peak <= batch * one.peak + sum(bytes_of(layer) for layer in layers.values())


def test_bytes_are_those_of_the_sums() -> None:
    case = tiny(samples=1)
    layers = layers_of(case)
    for name, blocks in summed(case, layers).items():
        assert len(blocks) == len(blocks_of(layers[name]))
        assert bytes_of(layers[name]) == sum(block.numel() * block.element_size() for block in blocks)


def test_a_layer_that_needs_more_room_than_there_is_has_a_part_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = layers_of(tiny(samples=1))
    monkeypatch.setattr(hessians, "ROOM", 1)
    assert in_parts(layers) == [[name] for name in layers]
