"""The bytes found on shapes alone are those that the allocator hands out."""

from __future__ import annotations

import torch
from benchmarks.scaling import peak_bytes
from torch import Tensor, nn

from dq_toolchain.calibrate.network.activation_memory import activation_memory_of
from dq_toolchain.toolchain.models.architectures import call_network
from dq_toolchain.toolchain.quant.step_vectors import find_step_vectors
from tests.tiny import noise, tiny_unet

BATCH = 16


def call(network: nn.Module) -> Tensor:
    return call_network(
        network, noise(BATCH), torch.full((BATCH,), 5.0), {"class_labels": torch.zeros(BATCH, dtype=torch.int64)}
    )


def test_forward_bytes_are_those_of_a_real_pass() -> None:
    network = tiny_unet()
    found = activation_memory_of(network, call)
    with torch.no_grad():
        call(network)
        assert 0.8 < found.forward / peak_bytes(lambda: call(network)) < 1.1
    assert found.backward > 2 * found.forward


def test_bytes_grow_with_the_batch_and_nothing_of_the_network_changes() -> None:
    network = tiny_unet()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    def one(network: nn.Module) -> Tensor:
        return call_network(network, noise(1), torch.tensor([5.0]), {"class_labels": torch.tensor([1])})

    many, few = activation_memory_of(network, call), activation_memory_of(network, one)
    assert 0.9 * BATCH < many.forward / few.forward < 1.1 * BATCH
    assert many.inputs == BATCH * few.inputs
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in network.parameters())


def test_a_network_with_step_vectors_needs_as_much_as_the_one_it_came_from() -> None:
    """Neither the rows of the last pass nor the look for a timestep in the table stands in the way."""
    network = tiny_unet()
    before = activation_memory_of(network, call)
    find_step_vectors(network, [5.0, 9.0], call)
    found = activation_memory_of(network, call)
    assert 0.95 < found.forward / before.forward < 1.05
    assert 0.95 < found.backward / before.backward < 1.05
