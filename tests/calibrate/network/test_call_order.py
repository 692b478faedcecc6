"""Which layers are a network's edges: by what depends on the sample, never by name or type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn

from dq_toolchain.calibrate.network.call_order import first_and_last_layer
from dq_toolchain.toolchain.errors import ModelError


class Network(nn.Module):
    """Layers of the timestep before and behind those of the sample, which it changes in place."""

    def __init__(self, *, reads: bool = True, idle: bool = False) -> None:
        super().__init__()
        self.time_in, self.sample_in, self.middle, self.time_out, self.out = (nn.Linear(4, 4) for _ in range(5))
        self.reads = reads
        if idle:
            self.idle = nn.Linear(4, 4)

    def forward(self, sample: Tensor | list[Tensor], timestep: Tensor) -> Tensor:
        x = sample[0] if isinstance(sample, list) else sample
        x += 1
        time = self.time_in(timestep)
        x = self.sample_in(x if self.reads else timestep)
        x = self.middle(x) * self.time_out(time)
        return torch.as_tensor(self.out(x))


def _frozen(network: nn.Module) -> nn.Module:
    return network.eval().requires_grad_(False)


SAMPLE, TIME = torch.ones(1, 4), torch.ones(1, 4)


@pytest.mark.parametrize(
    "run",
    [
        lambda network: network(SAMPLE.clone(), TIME),
        lambda network: network([SAMPLE.clone()], TIME),
        lambda network: network(sample=SAMPLE.clone(), timestep=TIME),
    ],
    ids=["positional", "list", "keyword"],
)
def test_edges_are_the_first_reader_of_the_sample_and_the_last_layer(run: Callable[[nn.Module], Tensor]) -> None:
    network = _frozen(Network())
    assert first_and_last_layer(network, (), run) == {"sample_in", "out"}
    assert not any(module._forward_pre_hooks for module in network.modules())
    assert not run(network).requires_grad


def test_a_network_that_reads_no_sample_has_a_last_layer_only() -> None:
    assert first_and_last_layer(_frozen(Network(reads=False)), (), lambda n: n(SAMPLE.clone(), TIME)) == {"out"}


def test_a_layer_that_is_never_called_is_refused_unless_it_stays_in_float() -> None:
    network = _frozen(Network(idle=True))
    with pytest.raises(ModelError, match="idle is never called"):
        first_and_last_layer(network, (), lambda n: n(SAMPLE.clone(), TIME))
    assert first_and_last_layer(network, ("idle",), lambda n: n(SAMPLE.clone(), TIME)) == {"sample_in", "out"}


def test_a_transformer_without_convolutions_has_edges_too() -> None:
    """At 4 bits its first and last layer were of 4 bits as well, while those of a UNet keep 8."""
    network = FluxTransformer2DModel(
        in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=8, pooled_projection_dim=8, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip

    def run(flux: nn.Module) -> Any:
        return flux(
            hidden_states=torch.ones(1, 6, 4), encoder_hidden_states=torch.ones(1, 3, 8), pooled_projections=torch.ones(1, 8),
            timestep=torch.ones(1), img_ids=torch.zeros(6, 3), txt_ids=torch.zeros(3, 3),
        )  # fmt: skip

    assert first_and_last_layer(_frozen(network), (), run) == {"x_embedder", "proj_out"}
