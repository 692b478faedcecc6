"""A network that takes what depends on time from a table is the same function at every step of a schedule."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel
from scripts.published.encoders import POOLED
from torch import Tensor, nn

from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.models.architectures import call_network, inputs_of
from dq_toolchain.toolchain.quant.sites import weighted_layers
from dq_toolchain.toolchain.quant.step_vectors import StepVectors, find_step_vectors
from dq_toolchain.toolchain.quant.time_path import find_time_path
from dq_toolchain.toolchain.sampler.probe import probe
from tests import tiny_pipelines
from tests.tiny import SIZE, noise, scheduler, tiny_condition_unet, tiny_unet

TIMESTEPS = probe(scheduler(), 20).timesteps
PROJECTIONS = (
    "down_blocks.0.resnets.0.time_emb_proj",
    "down_blocks.1.resnets.0.time_emb_proj",
    "up_blocks.0.resnets.0.time_emb_proj",
    "up_blocks.0.resnets.1.time_emb_proj",
    "up_blocks.1.resnets.0.time_emb_proj",
    "up_blocks.1.resnets.1.time_emb_proj",
    "mid_block.resnets.0.time_emb_proj",
    "mid_block.resnets.1.time_emb_proj",
)


def unconditional(**options: object) -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=SIZE,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=8,
        **options,
    )


def sdxl() -> nn.Module:
    network: nn.Module = tiny_pipelines.unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=POOLED + 6 * 4,
    )
    return network


class Own(nn.Module):
    """A module of the caller's: a sinusoid written in place, one activation for time and picture, and the timestep itself."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.out = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)
        self.first, self.second, self.activation = nn.Linear(8, 8), nn.Linear(8, 8), nn.SiLU()

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        angles = timestep[:, None] * torch.arange(4)
        embedding = torch.zeros(len(x), 8)
        embedding[:, 0::2], embedding[:, 1::2] = angles.sin(), angles.cos()
        embedding += 1
        embedding = self.first(embedding)
        h = self.activation(self.conv(x) + self.activation(embedding)[:, :, None, None])
        h = h * (1 + self.second(embedding)[:, :, None, None])
        out: Tensor = self.out(h) + timestep.view(-1, 1, 1, 1) / 1000
        return out


@dataclass(frozen=True)
class Case:
    build: Callable[[], nn.Module]
    vectors: tuple[str, ...]


CASES = {
    "classes": Case(tiny_unet, ("time_embedding",)),
    "time alone": Case(unconditional, PROJECTIONS),
    "scale and shift": Case(lambda: unconditional(resnet_time_scale_shift="scale_shift"), PROJECTIONS),
    "divided by time": Case(lambda: unconditional(time_embedding_type="fourier"), (*PROJECTIONS, "timestep")),
    "text": Case(tiny_condition_unet, PROJECTIONS),
    "text and sizes": Case(sdxl, ("time_embedding",)),
    "guidance": Case(lambda: tiny_pipelines.unet(time_cond_proj_dim=10), ("time_proj",)),
    "DiT": Case(tiny_pipelines.dit, tuple(f"transformer_blocks.{i}.norm1.emb.timestep_embedder" for i in (0, 1))),
    "PixArt": Case(tiny_pipelines.pixart, ("adaln_single.emb", "adaln_single.linear")),
    "SD3": Case(tiny_pipelines.sd3, ("time_text_embed.timestep_embedder",)),
    "own": Case(Own, ("first", "second", "timestep")),
}


def built(case: Case) -> tuple[nn.Module, Callable[[nn.Module, float], Tensor]]:
    """The network, no weight of it zero, and what calls it with three samples at a timestep."""
    network = case.build().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        if not parameter.any():
            parameter.normal_(0, 0.1, generator=generator)
    keywords, channels = {}, 1
    if not isinstance(network, Own):
        config = dict(network.config) | {"_class_name": type(network).__name__}  # type: ignore[arg-type]
        channels = config["in_channels"]
        for name, entry in inputs_of(config).items():
            shape = (3, *(5 if side is None else side for side in entry.row))
            labels = torch.randint(entry.classes or 1, shape, generator=generator)
            if entry.required:
                keywords[name] = labels if entry.classes else torch.randn(shape, generator=generator)

    @torch.no_grad()
    def call(network: nn.Module, timestep: float) -> Tensor:
        return call_network(network, noise(3, channels=channels), torch.full((3,), timestep), keywords)

    return network, call


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def test_rewritten_network_is_the_same_function_at_every_step(case: Case) -> None:
    network, call = built(case)
    rewritten = copy.deepcopy(network)
    given, _ = find_step_vectors(rewritten, TIMESTEPS, lambda each: call(each, TIMESTEPS[3]))
    rewritten = copy.deepcopy(rewritten)  # a copy has a table of its own
    for timestep in TIMESTEPS:
        want, got = call(network, timestep), call(rewritten, timestep)
        assert (got - want).abs().max() <= 1e-6 * want.abs().max()
    assert given.rows.shape == (20, given.width)


def test_the_cut_is_the_last_place_that_only_time_reaches(case: Case) -> None:
    network, call = built(case)
    path = find_time_path(network, lambda each: call(each, 500.0))
    assert {vector.name for vector in path.vectors} == set(case.vectors)


def test_no_layer_of_the_time_embedding_is_left(case: Case) -> None:
    network, call = built(case)
    before = {name for name, _ in weighted_layers(network)}
    given, gone = find_step_vectors(network, TIMESTEPS, lambda each: call(each, TIMESTEPS[0]))
    left = {name for name, _ in weighted_layers(network)}
    assert left == {name for name in before if not given.replaces(name)}
    assert left < before or case.vectors == ("time_proj",)  # where guidance is added to the sinusoid
    assert left.isdisjoint(name.rpartition(".")[0] for name in gone)


def test_rows_of_any_timesteps_are_what_the_network_computes_there(case: Case) -> None:
    network, call = built(case)
    path = find_time_path(network, lambda each: call(each, 500.0))
    again = find_time_path(network, lambda each: call(each, 7.25))
    torch.testing.assert_close(path.rows([7.25, 999.0]), again.rows([7.25, 999.0]), rtol=0, atol=0)
    assert not torch.equal(path.rows([7.25]), path.rows([999.0]))


def test_rows_in_the_place_of_timesteps_give_the_same(case: Case) -> None:
    network, call = built(case)
    given, _ = find_step_vectors(network, TIMESTEPS, lambda each: call(each, TIMESTEPS[0]))
    want = call(network, TIMESTEPS[5])
    row = given.rows[5].expand(3, -1)

    def instead(_network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if "timestep" in kwargs:
            return args, {**kwargs, "timestep": row}
        return (args[0], row), kwargs

    network.register_forward_pre_hook(instead, with_kwargs=True, prepend=True)
    assert torch.equal(call(network, 0.0), want)


def test_a_timestep_that_has_no_row_is_refused() -> None:
    network, call = built(CASES["time alone"])
    find_step_vectors(network, TIMESTEPS, lambda each: call(each, TIMESTEPS[0]))
    with pytest.raises(ModelError, match=r"timestep 7\.5 is not among the 20"):
        call(network, 7.5)


class Reading(Own):
    """Asks for the timestep's number."""

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        return super().forward(x if timestep[0] > 10 else -x, timestep)


def test_a_network_that_reads_its_timestep_as_a_number_is_refused() -> None:
    with pytest.raises(ModelError, match="reads its timestep as a number"):
        find_time_path(Reading(), lambda each: each(noise(2), torch.full((2,), 5.0)))


class Untold(Own):
    """Does not look at the timestep."""

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        out: Tensor = self.out(self.conv(x))
        return out


def test_a_network_without_time_is_refused() -> None:
    with pytest.raises(ModelError, match="nothing in this network depends on its timestep"):
        find_time_path(Untold(), lambda each: each(noise(2), torch.full((2,), 5.0)))


class Behind(Own):
    """Writes its sinusoid into a view that was taken before, which cannot be followed."""

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        embedding = torch.zeros(len(x), 8)
        view = embedding[:, :4]
        view += (timestep[:, None] / 500).expand(-1, 4)
        out: Tensor = self.out(
            self.conv(x) + self.first(embedding)[:, :, None, None] + self.second(view.repeat(1, 2))[:, :, None, None]
        )
        return out


def test_a_table_that_would_change_the_function_is_refused() -> None:
    with pytest.raises(ModelError, match="output differs by"):
        find_step_vectors(Behind().eval(), TIMESTEPS, lambda each: each(noise(2), torch.full((2,), TIMESTEPS[0])))


def test_names_and_shapes_survive_json() -> None:
    network, call = built(CASES["PixArt"])
    given, _ = find_step_vectors(network, TIMESTEPS, lambda each: call(each, TIMESTEPS[0]))
    again = StepVectors.from_json(given.to_json(), given.tensors)
    assert (again.vectors, again.unused) == (given.vectors, given.unused)
