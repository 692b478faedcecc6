"""Every supported network is called by one rule: a latent, timesteps and the keyword tensors that its config asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from scripts.published.encoders import POOLED
from torch import Tensor, nn

from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.models.architecture import Input
from dq_toolchain.toolchain.models.architectures import (
    ARCHITECTURES,
    call_network,
    fix_positions,
    inputs_of,
    latent_shape,
    without_idle,
)
from dq_toolchain.toolchain.models.flux import PACK, pack, unpack
from tests.tiny import tiny_condition_unet, tiny_unet
from tests.tiny_chat import qwen_image, z_image
from tests.tiny_pipelines import WIDTH, dit, flux, flux2, pixart, sana, sd3, unet

NETWORKS: dict[str, Callable[[], Any]] = {
    "labels": tiny_unet,
    "text": tiny_condition_unet,
    "text_time": lambda: unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=POOLED + 6 * 4,
    ),
    "told its guidance": lambda: unet(time_cond_proj_dim=10),
    "dit": dit,
    "pixart": pixart,
    "sd3": sd3,
    "sana": sana,
    "flux": flux,
    "flux, told its guidance": lambda: flux(guidance_embeds=True),
    "flux2": flux2,
    "z_image": z_image,
    "qwen_image": qwen_image,
}
KEYWORDS = {
    "labels": {"class_labels"},
    "text": {"encoder_hidden_states"},
    "text_time": {"encoder_hidden_states", "text_embeds", "time_ids"},
    "told its guidance": {"encoder_hidden_states", "timestep_cond"},
    "dit": {"class_labels"},
    "pixart": {"encoder_hidden_states", "encoder_attention_mask"},
    "sd3": {"encoder_hidden_states", "pooled_projections"},
    "sana": {"encoder_hidden_states", "encoder_attention_mask"},
    "flux": {"encoder_hidden_states", "pooled_projections"},
    "flux, told its guidance": {"encoder_hidden_states", "pooled_projections", "guidance"},
    "flux2": {"encoder_hidden_states"},
    "z_image": {"encoder_hidden_states", "encoder_attention_mask"},
    "qwen_image": {"encoder_hidden_states", "encoder_attention_mask"},
}


def config_of(network: Any) -> dict[str, Any]:
    sizes = {"FluxTransformer2DModel": 8, "Flux2Transformer2DModel": 4, "ZImageTransformer2DModel": 8,
             "QwenImageTransformer2DModel": 8}  # fmt: skip
    name = type(network).__name__
    return dict(network.config) | {"_class_name": name} | ({"sample_size": sizes[name]} if name in sizes else {})


def rows_of(inputs: dict[str, Input], count: int) -> dict[str, Tensor]:
    """Tensors that the inputs ask for; free sizes are 5."""
    generator = torch.Generator().manual_seed(0)
    made = {}
    for name, one in inputs.items():
        shape = (count, *(5 if size is None else size for size in one.row))
        labels = None if one.classes is None else torch.arange(count) % one.classes
        made[name] = torch.randn(shape, generator=generator) if labels is None else labels
    return made


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_takes_what_its_config_asks_for_and_answers_in_the_latents_shape(name: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    config = config_of(network)
    inputs = inputs_of(config)
    assert set(inputs) == KEYWORDS[name]
    keywords = rows_of(inputs, 2)
    assert all(inputs[key].fault(value) is None for key, value in keywords.items())
    if "encoder_attention_mask" in keywords:  # one means "look at this token"
        keywords["encoder_attention_mask"] = torch.ones_like(keywords["encoder_attention_mask"])
    sample = torch.randn(2, *latent_shape(config), generator=torch.Generator().manual_seed(1))
    out = call_network(network, sample, torch.tensor([3.0, 700.0]), keywords)
    assert out.shape == sample.shape
    assert out.isfinite().all()
    alone = call_network(
        network, sample[1:], torch.tensor([700.0]), {key: value[1:] for key, value in keywords.items()}
    )
    torch.testing.assert_close(alone, out[1:], rtol=1e-4, atol=1e-5)  # rows are samples of their own


def test_every_architecture_is_called_here() -> None:
    assert {type(make()).__name__ for make in NETWORKS.values()} == set(ARCHITECTURES)


def test_a_module_around_a_network_gets_the_keywords_as_they_are() -> None:
    class Around(nn.Module):
        def forward(self, sample: Tensor, timestep: Tensor, **keywords: Tensor) -> tuple[Tensor]:
            return (sample + keywords["text_embeds"].sum() + timestep.sum(),)

    out = call_network(Around(), torch.zeros(1, 1, 2, 2), torch.tensor([3.0]), {"text_embeds": torch.ones(1, 4)})
    assert torch.equal(out, torch.full((1, 1, 2, 2), 7.0))


@torch.no_grad()
@pytest.mark.parametrize("name", ["flux", "flux2"])
def test_tables_of_positions_stand_for_what_computes_them(name: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    config = config_of(network)
    keywords = rows_of(inputs_of(config), 1)
    x = torch.randn(1, *latent_shape(config))
    before = call_network(network, x, torch.tensor([300.0]), keywords)
    for _ in range(2):  # the second time there is nothing left to do
        fix_positions(network, x, keywords)
        assert torch.equal(call_network(network, x, torch.tensor([300.0]), keywords), before)
    assert {"picture", "text"} == {name for name, _ in network.pos_embed.named_buffers()}


@pytest.mark.parametrize("side", [1, 2])
def test_latents_are_packed_as_the_pipeline_packs_them(side: int) -> None:
    x = torch.randn(2, 4, 6, 8)
    packed = pack(x, side)
    assert torch.equal(unpack(packed, side, x), x)
    if side == PACK:
        assert torch.equal(packed, FluxPipeline._pack_latents(x, 2, 4, 6, 8))


@pytest.mark.parametrize(
    ("made", "change"),
    [(flux, {"in_channels": 384, "out_channels": 64}), (flux, {"in_channels": 128, "out_channels": 64}),
     (flux2, {"in_channels": 256, "out_channels": 128}), (qwen_image, {"in_channels": 64, "out_channels": 4})],
)  # fmt: skip
def test_tokens_with_more_inputs_than_outputs_are_refused_by_the_config(
    made: Callable[[], nn.Module], change: dict[str, int]
) -> None:
    with pytest.raises(ModelError, match=r"do not belong to the same latents \(an inpainting"):
        latent_shape(config_of(made()) | change)


def test_a_flux_of_odd_channels_is_refused() -> None:
    with pytest.raises(ModelError, match="in_channels is 18, allowed are multiples of 4"):
        latent_shape(config_of(flux()) | {"in_channels": 18})


@pytest.mark.parametrize(
    ("made", "change", "text"),
    [
        (z_image, {"siglip_feat_dim": 8}, "siglip_feat_dim is 8, allowed is null"),
        (z_image, {"all_patch_size": [4]}, r"all_patch_size is \[4\], allowed are lists with 2"),
        (qwen_image, {"zero_cond_t": True}, "zero_cond_t is True, allowed is false: it edits pictures"),
        (
            qwen_image,
            {"guidance_embeds": True},
            "guidance_embeds is True, allowed is false: its own pipeline cannot call",
        ),
    ],
)
def test_relatives_that_take_something_else_are_refused(made: Any, change: dict[str, Any], text: str) -> None:
    with pytest.raises(ModelError, match=f"here: {text}"):
        inputs_of(config_of(made()) | change, "here")


@torch.no_grad()
def test_what_nothing_depends_on_is_not_there() -> None:
    """The last block of Qwen-Image makes a text that nobody reads; weights and adapters of it are left out by name."""
    torch.manual_seed(0)
    network = qwen_image().eval()
    config, last = config_of(network), network.transformer_blocks[-1]
    keywords, x = rows_of(inputs_of(config), 1), torch.randn(1, *latent_shape(config))
    keywords["encoder_attention_mask"] = torch.ones(1, 5)
    state = network.state_dict()
    given = pack(x, PACK), torch.tensor([0.3])
    theirs = network(given[0], keywords["encoder_hidden_states"], None, given[1], [[(1, 4, 4)]], return_dict=False)[0]
    torch.testing.assert_close(call_network(network, x, torch.tensor([300.0]), keywords), unpack(theirs, PACK, x))
    assert set(without_idle(config, state)) == set(network.state_dict())
    assert not list(last.txt_mlp.parameters())
    named = {
        "transformer_blocks_1_attn_to_add_out": 1,
        "transformer_blocks_1_attn_to_q": 2,
        "transformer_blocks_11_txt_mlp": 3,
    }
    assert set(without_idle(config, named, "_").values()) == {2, 3}


@pytest.mark.parametrize(
    ("tensor", "fits"),
    [
        (torch.zeros(3, 7, WIDTH), True),
        (torch.zeros(3, 7, WIDTH).half(), True),
        (torch.zeros(3, 7, WIDTH + 1), False),
        (torch.zeros(3, WIDTH), False),
        (torch.zeros(0, 7, WIDTH), False),
        (torch.zeros(3, 7, WIDTH, dtype=torch.int64), False),
        (torch.full((3, 7, WIDTH), torch.nan), False),
    ],
)
def test_states_are_finite_floats_of_their_width(tensor: Tensor, fits: bool) -> None:
    fault = Input((None, WIDTH)).fault(tensor)
    assert fault == (None if fits else f"finite floating-point numbers of shape (P, T, {WIDTH}), P at least 1")


@pytest.mark.parametrize(
    ("tensor", "fits"),
    [
        (torch.tensor([0, 10]), True),
        (torch.tensor([0, 10], dtype=torch.int32), True),
        (torch.tensor([11]), False),
        (torch.tensor([-1]), False),
        (torch.tensor([1.0]), False),
        (torch.tensor([[1]]), False),
    ],
)
def test_labels_are_whole_numbers_below_the_number_of_classes(tensor: Tensor, fits: bool) -> None:
    assert Input((), 11).fault(tensor) == (None if fits else "integer labels 0-10 of shape (P), P at least 1")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"class_embed_type": "timestep"}, "class_embed_type is 'timestep', which is not supported"),
        ({"addition_embed_type": "image"}, "addition_embed_type is 'image', which is not supported"),
        ({"encoder_hid_dim": 4}, "encoder_hid_dim is '4', which is not supported"),
    ],
)
def test_inputs_of_other_kinds_are_refused_by_name(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ModelError, match=f"here: {text}; allowed are"):
        inputs_of(config_of(tiny_condition_unet()) | change, "here")
