"""Activation checkpointing and low-memory networks give the gradients of plain ones, and take less memory."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from dq_toolchain.calibrate.network.activation_checkpointing import checkpointed
from dq_toolchain.calibrate.network.activation_memory import activation_memory_of
from dq_toolchain.toolchain.models.architectures import architecture_of, call_network
from tests.calibrate.network.test_insert import tiny_network
from tests.tiny import noise, tiny_condition_unet
from tests.tiny_chat import qwen_image, z_image
from tests.tiny_pipelines import sd3


def gradients(model: Path, out: Path, low_memory: bool) -> dict[str, torch.Tensor]:
    network = tiny_network(model, out)
    network.low_memory = low_memory
    with checkpointed(network.inner) if low_memory else nullcontext(), network.weights_once():
        for k, time in ((0, 900.0), (3, 100.0)):
            network.set_step(k)
            out_ = call_network(network, noise(2), torch.full((2,), time), {"class_labels": torch.tensor([1, 2])})
            out_.square().sum().backward()  # type: ignore[no-untyped-call]
    return {
        name: p.grad
        for name, p in (network.weight_parameters() | network.scale_parameters()).items()
        if p.grad is not None
    }


def test_a_lean_network_has_the_same_gradients(tiny_model: Path, tmp_path: Path) -> None:
    expected, found = (gradients(tiny_model, tmp_path, low_memory) for low_memory in (False, True))
    assert set(expected) == set(found)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def test_blocks_are_as_before_afterwards_and_untouched_without_gradient() -> None:
    unet = tiny_condition_unet()
    x, keywords = noise(1, channels=4), {"encoder_hidden_states": torch.ones(1, 3, 8)}
    with torch.no_grad():
        wanted = call_network(unet, x, torch.tensor([5.0]), keywords)
        with checkpointed(unet):
            assert torch.equal(call_network(unet, x, torch.tensor([5.0]), keywords), wanted)
    assert not any("forward" in vars(module) for module in unet.modules())


def made_ready(network: torch.nn.Module) -> torch.nn.Module:
    """As a model's network is loaded."""
    architecture = architecture_of(network)
    assert architecture is not None
    assert architecture.packed is not None
    architecture.packed.ready(network)
    return network


NETWORKS = {
    "unet": (tiny_condition_unet(), 0.8),
    "sd3": (sd3(), 0.8),
    "z_image": (made_ready(z_image(n_layers=3)), 1.0),  # its time embedding, 1024 wide, is most of it
    "qwen_image": (made_ready(qwen_image(num_layers=3)), 0.8),
}


@pytest.mark.parametrize(("network", "share"), NETWORKS.values(), ids=NETWORKS)
def test_checkpointing_keeps_less(network: torch.nn.Module, share: float) -> None:
    keywords = {"encoder_hidden_states": torch.ones(2, 3, 8)}
    if type(network).__name__.startswith("SD3"):
        keywords["pooled_projections"] = torch.ones(2, 16)

    def call(network: torch.nn.Module) -> torch.Tensor:
        return call_network(network, torch.ones(2, 4, 8, 8), torch.tensor([5.0, 6.0]), keywords)

    plain, saving = activation_memory_of(network, call), activation_memory_of(network, call, checkpointed)
    assert saving.forward == plain.forward
    assert saving.backward < share * plain.backward
