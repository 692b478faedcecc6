"""Configs as published: the class that is built, missing keys, and numbers that no memory holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import Transformer2DModel

from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.models.architectures import call_network, inputs_of, latent_shape
from dq_toolchain.toolchain.models.loading import build_network
from dq_toolchain.toolchain.models.network_config import as_built, check_bounds, complete
from tests.tiny import tiny_unet
from tests.tiny_pipelines import dit, pixart, sd3, unet

UNET = dict(tiny_unet().config) | {"_class_name": "UNet2DModel"}
TEXT = dict(unet().config) | {"_class_name": "UNet2DConditionModel"}
PIXART = dict(pixart().config) | {"_class_name": "PixArtTransformer2DModel"}
SD3 = dict(sd3().config) | {"_class_name": "SD3Transformer2DModel"}


@pytest.mark.parametrize(
    ("norm", "name"), [("ada_norm_zero", "DiTTransformer2DModel"), ("ada_norm_single", "PixArtTransformer2DModel")]
)
def test_the_old_class_of_transformers_is_built_as_diffusers_builds_it(norm: str, name: str) -> None:
    network = dit() if norm == "ada_norm_zero" else pixart()
    old = dict(network.config) | {
        "_class_name": "Transformer2DModel",
        "num_vector_embeds": None,
        "only_cross_attention": False,
    }
    config = as_built(old, "transformer/config.json")
    with torch.device("meta"):
        assert type(Transformer2DModel.from_config(old)).__name__ == name == config["_class_name"]
    assert "only_cross_attention" not in config
    assert set(build_network(config).state_dict()) == set(network.state_dict())


@pytest.mark.parametrize("change", [{"norm_type": "ada_norm"}, {"norm_type": None}, {"norm_type": [1]}, {}])
def test_other_kinds_of_the_old_class_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(
        ModelError,
        match=r"t\.json: Transformer2DModel with norm_type .*ada_norm_zero .*ada_norm_single .*other networks",
    ):
        as_built({"_class_name": "Transformer2DModel"} | change, "t.json")


def test_keys_that_an_old_config_lacks_have_the_defaults_of_the_class() -> None:
    assert inputs_of({"_class_name": "DiTTransformer2DModel"})["class_labels"].classes == 1001
    assert inputs_of({"_class_name": "UNet2DConditionModel"})["encoder_hidden_states"].row == (None, 1280)
    assert latent_shape({"_class_name": "SD3Transformer2DModel"}) == (16, 128, 128)
    assert set(inputs_of({"_class_name": "PixArtTransformer2DModel"})) > {"resolution", "aspect_ratio"}
    assert complete({"_class_name": "UNet2DModel", "sample_size": 8})["in_channels"] == 3


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (UNET | {"sample_size": 8000}, "sample_size is 8000, allowed are at most 2,048"),
        (UNET | {"sample_size": 10**9}, "sample_size is 1e\\+09"),
        (UNET | {"sample_size": [8, 4000]}, "sample_size is 4000"),
        (UNET | {"downsample_padding": 178}, "downsample_padding is 178, allowed are at most 8"),
        (UNET | {"layers_per_block": 10**6}, "layers_per_block is 1e\\+06, allowed are at most 64"),
        (UNET | {"block_out_channels": [2**40, 8]}, "block_out_channels is"),
        (UNET | {"block_out_channels": [8] * 65}, "a list of 65 entries"),
        (UNET | {"block_out_channels": [8] * 64, "layers_per_block": 64}, "4,096 blocks, allowed are 1,024"),
        (TEXT | {"transformer_layers_per_block": [[10**6], [1]]}, "transformer_layers_per_block is"),
        (TEXT | {"norm_eps": float("nan")}, "norm_eps is nan, allowed are finite"),
        (TEXT | {"cross_attention_dim": 2**30}, "cross_attention_dim"),
        (PIXART | {"num_layers": 10**5}, "num_layers is"),
        (PIXART | {"attention_head_dim": 2**19, "sample_size": 2000}, "table of positions"),
        (SD3 | {"pos_embed_max_size": 1024, "attention_head_dim": 2**10}, "table of positions"),
    ],
)
def test_a_network_that_no_memory_holds_is_not_built(config: dict[str, Any], message: str) -> None:
    for check in (lambda: check_bounds(config, "unet/config.json"), lambda: build_network(config, "unet/config.json")):
        with pytest.raises(ModelError, match=rf"^unet/config\.json: .*{message}"):
            check()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (UNET | {"in_channels": "4"}, "in_channels is '4', allowed is a whole number"),
        (UNET | {"in_channels": None}, "in_channels is 'None'"),
        (UNET | {"in_channels": True}, "in_channels is 'True'"),
        (UNET | {"num_class_embeds": "ten"}, "num_class_embeds is 'ten'"),
        (UNET | {"sample_size": "64"}, "sample_size is 64, allowed"),
        (UNET | {"sample_size": [8, True]}, "sample_size is"),
        (UNET | {"class_embed_type": "timestep"}, "class_embed_type is 'timestep', which is not supported"),
        (TEXT | {"in_channels": 9}, "in_channels 9 and out_channels 4 differ .an inpainting"),
        (TEXT | {"addition_embed_type": "image"}, "addition_embed_type is 'image'"),
        (TEXT | {"encoder_hid_dim": 8}, "encoder_hid_dim is '8'"),
        (TEXT | {"addition_embed_type": "text_time"}, "projection_class_embeddings_input_dim is 'None'"),
        (
            TEXT
            | {
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 256,
                "projection_class_embeddings_input_dim": 9,
            },
            "projection_class_embeddings_input_dim is 9, allowed is more than 6 times",
        ),
        (TEXT | {"cross_attention_dim": "wide"}, "cross_attention_dim is 'wide'"),
        (TEXT | {"time_cond_proj_dim": []}, "time_cond_proj_dim is"),
        (PIXART | {"caption_channels": "x"}, "caption_channels is 'x'"),
        (SD3 | {"pooled_projection_dim": None}, "pooled_projection_dim is"),
    ],
)
def test_what_a_config_decides_is_refused_by_file_and_key(config: dict[str, Any], message: str) -> None:
    def decide() -> None:
        inputs_of(config, "unet/config.json")
        latent_shape(config, "unet/config.json")

    with pytest.raises(ModelError, match=rf"^unet/config\.json: {message}"):
        decide()


@torch.no_grad()
def test_a_config_of_the_old_class_gives_the_same_outputs() -> None:
    """Against diffusers' own remapping, with one set of weights."""
    network = dit().eval()
    old = dict(network.config) | {"_class_name": "Transformer2DModel"}
    theirs = Transformer2DModel.from_config(old).eval()
    theirs.load_state_dict(network.state_dict())
    ours = build_network(as_built(old, "")).eval()
    ours.load_state_dict(network.state_dict(), assign=True)
    x, time, label = (
        torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)),
        torch.tensor([7.0]),
        torch.tensor([3]),
    )
    expected = theirs(x, timestep=time, class_labels=label, return_dict=False)[0]
    assert torch.equal(call_network(ours, x, time, {"class_labels": label}), expected[:, :4])
