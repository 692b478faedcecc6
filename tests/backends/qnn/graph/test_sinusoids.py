"""A network that is given the sinusoids of its conditioning is the same function as one that computes them."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from diffusers.models.embeddings import PixArtAlphaCombinedTimestepSizeEmbeddings, Timesteps
from torch import Tensor, nn

from dq_toolchain.backends.qnn.graph.sinusoids import left_in_network, projected, projected_tensors, take_projected
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.sampler.conditioning import Conditioning


class Sizes(nn.Module):
    """As SDXL's UNet treats ``time_ids``."""

    def __init__(self) -> None:
        super().__init__()
        self.add_time_proj = Timesteps(8, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.last = nn.Linear(6 * 8 + 2, 3)

    def forward(self, text_embeds: Tensor, time_ids: Tensor) -> Tensor:
        sinusoids = self.add_time_proj(time_ids.flatten()).reshape(len(text_embeds), -1)
        out: Tensor = self.last(torch.cat([text_embeds, sinusoids], 1))
        return out


class Resolutions(nn.Module):
    """As PixArt's transformer has them."""

    def __init__(self) -> None:
        super().__init__()
        self.adaln_single = nn.Module()
        self.adaln_single.emb = PixArtAlphaCombinedTimestepSizeEmbeddings(12, 4, use_additional_conditions=True)

    def forward(self, resolution: Tensor, aspect_ratio: Tensor) -> Tensor:
        timestep = torch.full((len(resolution),), 3.0)
        emb = cast(nn.Module, self.adaln_single.emb)
        out: Tensor = emb(timestep, resolution, aspect_ratio, len(resolution), torch.float32)
        return out


CASES: dict[str, tuple[type[nn.Module], Mapping[str, Tensor]]] = {
    "sdxl": (Sizes, {"text_embeds": torch.rand(2, 2), "time_ids": 1024 * torch.rand(2, 6)}),
    "pixart": (Resolutions, {"resolution": 1024 * torch.rand(2, 2), "aspect_ratio": torch.rand(2, 1)}),
}


def artifact_of(network: nn.Module) -> Artifact:
    return cast(Artifact, SimpleNamespace(build_skeleton=lambda: network))


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_given_sinusoids_are_what_the_network_computes(name: str) -> None:
    kind, given = CASES[name]
    network = kind()
    wanted = network(**given)
    rows = projected(artifact_of(network), Conditioning(given, {key: 2 * value for key, value in given.items()}))
    take_projected(network)
    modules = [each for each in network.modules() if isinstance(each, Timesteps)]
    assert len(modules) == (1 if name == "pixart" else 0), "only the timestep's own is left"
    torch.testing.assert_close(network(**rows.cond), wanted, rtol=0, atol=0)
    for key, tensor in given.items():
        changed = key != "text_embeds"
        assert (rows.cond[key].shape != tensor.shape) is changed
        assert (rows.uncond[key].shape != tensor.shape) is changed
        one = rows.select(slice(1)).cond[key]
        assert torch.equal(one, rows.cond[key][:1]), "a row per sample"


def test_other_sinusoids_are_named() -> None:
    network = Sizes()
    assert list(left_in_network(network)) == []
    network.add_module("other", Timesteps(4, flip_sin_to_cos=True, downscale_freq_shift=0))
    assert list(left_in_network(network)) == ["other"]


def test_conditioning_without_sizes_stays() -> None:
    plain = Conditioning({"encoder_hidden_states": torch.rand(1, 2, 3)}, {})
    assert projected(artifact_of(nn.Identity()), plain) == plain


def test_constants_of_a_pipeline_are_projected_too() -> None:
    ids = 1024 * torch.rand(1, 6)
    found = projected_tensors(artifact_of(Sizes()), {"cond.time_ids": ids, "uncond.time_ids": ids, "cond.other": ids})
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == {
        "cond.time_ids": (1, 48), "uncond.time_ids": (1, 48), "cond.other": (1, 6),
    }  # fmt: skip
    assert torch.equal(found["cond.time_ids"], found["uncond.time_ids"])
