"""A float network that is unpacked layer by layer computes what the whole one does, and holds no float weights between calls."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dq_toolchain.backends.common.unpacked import unpacked_in_turn
from dq_toolchain.toolchain.models.architectures import call_network
from dq_toolchain.toolchain.quant.layers import Layer
from dq_toolchain.toolchain.quant.sites import weighted_layers
from tests import tiny, tiny_artifacts


def held(network: nn.Module) -> int:
    """Bytes of parameters that are in memory."""
    return sum(parameter.nbytes for parameter in network.parameters() if not parameter.is_meta)


@pytest.mark.parametrize("step_vectors", [False, True])
def test_the_outputs_are_equal_and_one_layer_is_in_memory_at_a_time(step_vectors: bool) -> None:
    artifact, _ = tiny_artifacts.lively_artifact(step_vectors=step_vectors, unet=tiny.tiny_condition_unet())
    whole, turned = artifact.build_float_unet(), unpacked_in_turn(artifact)
    rows = artifact.step_rows
    time = torch.tensor([artifact.table.timesteps[0]]) if rows is None else rows[:1]
    sample, text = torch.randn(1, 4, 8, 8), {"encoder_hidden_states": torch.randn(1, 7, 8)}
    before, most = held(turned), 0

    def look(layer: Layer, _inputs: object) -> None:
        nonlocal most
        most = max(most, held(turned) - before - layer.weight.nbytes)

    for _, layer in weighted_layers(turned):
        layer.register_forward_pre_hook(look)
    for _ in range(2):
        assert torch.equal(call_network(turned, sample, time, text), call_network(whole, sample, time, text))
    assert held(turned) == before
    assert most == 0
    assert before < held(whole) / 2


def test_a_call_that_fails_leaves_no_float_weights() -> None:
    artifact, _ = tiny_artifacts.tiny_artifact(unet=tiny.tiny_condition_unet())
    network = unpacked_in_turn(artifact)
    before = held(network)
    with pytest.raises(RuntimeError):
        call_network(
            network, torch.randn(1, 99, 8, 8), torch.tensor([1.0]), {"encoder_hidden_states": torch.randn(1, 7, 8)}
        )
    assert held(network) == before
