"""What a network is conditioned on: labels, rows of a file, and what follows from size and guidance; misfits are refused."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dq_toolchain.calibrate.data.conditioning import (
    check_conditioning,
    conditioning_bank,
    digest,
    guidance_of,
)
from dq_toolchain.toolchain.disk.files import write_tensors
from dq_toolchain.toolchain.errors import ModelError, RecipeError
from dq_toolchain.toolchain.models.loading import Model
from dq_toolchain.toolchain.recipe.loading import load_recipe
from dq_toolchain.toolchain.recipe.sections import Recipe
from dq_toolchain.toolchain.sampler.conditioning import Conditioning

UNET = {"_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 2, "out_channels": 2, "num_class_embeds": 5}
TEXT = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": [8, 16],
    "in_channels": 2,
    "out_channels": 2,
    "cross_attention_dim": 8,
}
SDXL = TEXT | {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 29,
}

KLEIN = {"_class_name": "Flux2Transformer2DModel", "in_channels": 16, "joint_attention_dim": 8, "guidance_embeds": False,
         "_is_distilled": True}  # fmt: skip
SCHNELL = {"_class_name": "FluxTransformer2DModel"}
Z_IMAGE = {"_class_name": "ZImageTransformer2DModel", "in_channels": 4, "cap_feat_dim": 8, "sample_size": 8}


def model(**config: Any) -> Model:
    """As much of a model as conditioning needs: its config."""
    return Model("made up", "0", config, {}, nn.Identity(), Path("nowhere"))


def recipe(**sections: dict[str, object]) -> Recipe:
    return load_recipe(None, {"sampler": {"guidance": 1.0}, **sections})


def with_file(folder: Path, **tensors: torch.Tensor) -> dict[str, object]:
    write_tensors(folder / "c.safetensors", {name.replace("__", "."): value for name, value in tensors.items()})
    return {"file": folder / "c.safetensors"}


def test_labels_leave_out_the_one_that_means_no_class() -> None:
    found = conditioning_bank(model(**UNET), recipe(conditioning={"null_label": 4}, sampler={"guidance": 2.0}))
    assert found.cond["class_labels"].tolist() == [0, 1, 2, 3]
    assert found.uncond["class_labels"].tolist() == [4]
    assert conditioning_bank(model(**UNET), recipe(conditioning={"null_label": 4})).uncond == {}


def test_a_network_without_conditioning_gets_none() -> None:
    assert conditioning_bank(model(**UNET | {"num_class_embeds": None}), recipe()) == Conditioning()


def test_sizes_follow_from_the_latent_and_stand_on_both_sides(tmp_path: Path) -> None:
    states, pooled = torch.ones(3, 7, 8), torch.ones(3, 5)
    rows = {"encoder_hidden_states": states, "text_embeds": pooled}
    sides = {"cond": rows, "uncond": {name: 0 * value[:1] for name, value in rows.items()}}
    file = with_file(
        tmp_path, **{f"{side}__{name}": value for side, each in sides.items() for name, value in each.items()}
    )
    found = conditioning_bank(model(**SDXL), recipe(conditioning=file, sampler={"guidance": 7.0}))
    for side in (found.cond, found.uncond):
        assert set(side) == {"encoder_hidden_states", "text_embeds", "time_ids"}
        assert side["time_ids"].tolist() == [[64, 128, 0, 0, 64, 128]]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ((9, 10, 1, 1), r"cond\.encoder_hidden_states has 9 rows and cond\.text_embeds 10, allowed is the same number"),
        ((9, 9, 9, 8), r"cond\.encoder_hidden_states has 9 rows and uncond\.text_embeds 8"),
        ((1, 1, 3, 2), r"uncond\.encoder_hidden_states has 3 rows and uncond\.text_embeds 2"),
        ((9, 9, 9, 9), None),
        ((9, 9, 1, 1), None),
        ((9, 1, 1, 1), None),
    ],
)
def test_rows_of_a_file_belong_together_or_are_one_for_all(
    rows: tuple[int, ...], said: str | None, tmp_path: Path
) -> None:
    names = [(side, name) for side in ("cond", "uncond") for name in ("encoder_hidden_states", "text_embeds")]
    shapes = {"encoder_hidden_states": (7, 8), "text_embeds": (5,)}
    tensors = {
        f"{side}__{name}": torch.ones(count, *shapes[name]) for (side, name), count in zip(names, rows, strict=True)
    }
    settings = recipe(conditioning=with_file(tmp_path, **tensors), sampler={"guidance": 7.0})
    with nullcontext() if said is None else pytest.raises(RecipeError, match=said):
        conditioning_bank(model(**SDXL), settings)


def test_a_network_that_is_told_its_guidance_runs_without(tmp_path: Path) -> None:
    config = TEXT | {"time_cond_proj_dim": 10}
    file = with_file(tmp_path, cond__encoder_hidden_states=torch.ones(3, 7, 8))
    rows = {
        w: conditioning_bank(model(**config), recipe(conditioning=file, sampler={"guidance": w})) for w in (1.0, 8.0)
    }
    assert guidance_of(config, recipe(sampler={"guidance": 8.0})) == 1.0
    assert guidance_of(TEXT, recipe(sampler={"guidance": 8.0})) == 8.0
    assert rows[8.0].uncond == {}
    told = rows[8.0].cond["timestep_cond"]
    assert told.shape == (1, 10)
    wanted = torch.cat([torch.tensor([7000.0]).sin(), torch.tensor([7000.0]).cos()])
    torch.testing.assert_close(told[0, [0, 5]], wanted)
    assert torch.equal(rows[1.0].cond["timestep_cond"], torch.tensor([[0.0] * 5 + [1.0] * 5]))


@pytest.mark.parametrize(("w", "used"), [(0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (1.01, 1.01), (7.5, 7.5)])
def test_guidance_up_to_one_is_one_conditional_call(w: float, used: float, tmp_path: Path) -> None:
    settings = recipe(sampler={"guidance": w}, conditioning={"null_label": 4})
    assert guidance_of(UNET, settings) == used
    assert bool(conditioning_bank(model(**UNET), settings).uncond) is (used > 1)
    alone = {**UNET, "num_class_embeds": None}
    if w <= 1:
        assert conditioning_bank(model(**alone), recipe(sampler={"guidance": w})) == Conditioning()


@pytest.mark.parametrize(("config", "w", "negative", "said"), [
    (TEXT, 0.5, "", ["guidance 0.5 is none"]), (TEXT, 0.0, "", []), (TEXT, 1.0, "", []), (TEXT, 7.5, "fog", []),
    (TEXT, 0.0, "fog", ["negative prompt has no effect: guidance 0.0 is none"]),
    (TEXT | {"time_cond_proj_dim": 10}, 8.0, "fog", ["negative prompt has no effect: this network is told its guidance"]),
    (KLEIN, 4.0, "fog", ["guidance 4.0 has no effect: model_index.json says is_distilled",
                         "negative prompt has no effect: a distilled model has no second call"]),
    (KLEIN, 1.0, "", []), (Z_IMAGE, 1.0, "", []),
    (Z_IMAGE, 5.0, "", ["what this model's pipeline calls guidance_scale 4: give 1 more than its model card says"]),
    (SCHNELL, 3.5, "", ["what this model's pipeline calls true_cfg_scale; its guidance_scale has no effect"]),
    (SCHNELL, 1.0, "", []), (SCHNELL | {"guidance_embeds": True}, 3.5, "", []),
])  # fmt: skip
def test_what_has_no_effect_without_guidance_is_said(
    config: dict[str, Any], w: float, negative: str, said: list[str]
) -> None:
    lines: list[str] = []
    guidance_of(config, recipe(sampler={"guidance": w}, conditioning={"negative_prompt": negative}), lines.append)
    assert len(lines) == len(said)
    assert all(text in line for text, line in zip(said, lines, strict=True))


def test_a_pipeline_that_rescales_guidance_is_refused_with_it() -> None:
    config = {"_class_name": "QwenImageTransformer2DModel", "in_channels": 16, "out_channels": 4, "sample_size": 8}
    with pytest.raises(
        RecipeError, match=r"guidance: got 4.0, allowed is up to 1 \(none\) for QwenImageTransformer2DModel"
    ):
        check_conditioning(config, recipe(sampler={"guidance": 4.0}))
    check_conditioning(config, recipe(sampler={"guidance": 1.0}))


@pytest.mark.parametrize("mask", [[0, 0, 0], [1, 0, 1], [0, 1, 1], [1, 0.5, 0]])
def test_a_caption_of_z_image_stands_first(mask: list[float], tmp_path: Path) -> None:
    rows = {
        "cond__encoder_hidden_states": torch.ones(1, 3, 8),
        "cond__encoder_attention_mask": torch.tensor([mask]).float(),
    }
    with pytest.raises(RecipeError, match="encoder_attention_mask must be ones, then zeros, at least one 1 per row"):
        conditioning_bank(model(**Z_IMAGE), recipe(conditioning=with_file(tmp_path, **rows)))


PIXART = {
    "_class_name": "PixArtTransformer2DModel",
    "in_channels": 4,
    "out_channels": 8,
    "sample_size": 8,
    "caption_channels": 8,
}


@pytest.mark.parametrize("config", [PIXART, Z_IMAGE], ids=lambda config: config["_class_name"])
@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.int32, torch.int64, torch.float16, torch.float32])
def test_a_mask_may_be_what_a_tokenizer_gives(kind: torch.dtype, config: dict[str, Any], tmp_path: Path) -> None:
    rows = {
        "cond__encoder_hidden_states": torch.ones(2, 3, 8),
        "cond__encoder_attention_mask": torch.tensor([[1, 1, 0], [1, 0, 0]]).to(kind),
    }
    found = conditioning_bank(model(**config), recipe(conditioning=with_file(tmp_path, **rows)))
    assert torch.equal(found.cond["encoder_attention_mask"], torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))


@pytest.mark.parametrize(
    ("name", "rows", "said"),
    [
        (
            "encoder_attention_mask",
            torch.tensor([[1, 2, 0]]),
            "int64 of shape .* with values 0 to 2, allowed is finite",
        ),
        ("encoder_attention_mask", torch.tensor([[-1, 1, 0]]), "or bool or integers 0 and 1, of shape"),
        ("encoder_attention_mask", torch.ones(1, 3, 1, dtype=torch.bool), "bool of shape"),
        (
            "encoder_hidden_states",
            torch.ones(1, 3, 8, dtype=torch.int64),
            "allowed is finite floating-point numbers of shape",
        ),
        ("encoder_hidden_states", torch.ones(1, 3, 8, dtype=torch.bool), "bool of shape"),
    ],
)
def test_other_integers_are_refused_by_name(name: str, rows: torch.Tensor, said: str, tmp_path: Path) -> None:
    given = {"cond__encoder_hidden_states": torch.ones(1, 3, 8), f"cond__{name}": rows}
    with pytest.raises(RecipeError, match=rf"cond\.{name} is .*{said}"):
        conditioning_bank(model(**PIXART), recipe(conditioning=with_file(tmp_path, **given)))


def test_the_last_label_of_a_dit_means_no_class() -> None:
    config = {"_class_name": "DiTTransformer2DModel", "num_embeds_ada_norm": 3, "sample_size": 8, "in_channels": 2,
              "out_channels": 4}  # fmt: skip
    settings = load_recipe(None, {"model": {"path": Path("nowhere")}, "sampler": {"guidance": 4.0}})
    found = conditioning_bank(model(**config), settings)
    assert found.cond["class_labels"].tolist() == [0, 1, 2]
    assert found.uncond["class_labels"].tolist() == [3]


@pytest.mark.parametrize(("levels", "side"), [(None, 64), ([8], 8), ([4, 4, 4], 32), ([1] * 4, 64), ("many", 64)])
def test_sizes_are_in_the_pixels_of_the_model_s_own_autoencoder(levels: Any, side: int, tmp_path: Path) -> None:
    if levels is not None:
        (tmp_path / "vae").mkdir()
        (tmp_path / "vae" / "config.json").write_text(json.dumps({"block_out_channels": levels}))
    file = with_file(tmp_path, cond__encoder_hidden_states=torch.ones(1, 7, 8), cond__text_embeds=torch.ones(1, 5))
    network = Model("made up", "0", SDXL | {"sample_size": 8}, {}, nn.Identity(), tmp_path)
    assert conditioning_bank(network, recipe(conditioning=file)).cond["time_ids"][0].tolist() == [
        side,
        side,
        0,
        0,
        side,
        side,
    ]


def test_equal_digests_mean_equal_numbers() -> None:
    one, other = torch.ones(2, 3), torch.ones(3, 2)
    found = [Conditioning({"a": one}), Conditioning({"a": other}), Conditioning({"b": one}), Conditioning({"a": one}, {"a": one}),
             Conditioning({"a": one * 2}), Conditioning({"a": one.double()})]  # fmt: skip
    assert len({digest(each) for each in found}) == len(found)
    assert digest(Conditioning({"a": one.clone()})) == digest(found[0])


@pytest.mark.parametrize(("change", "message"), [
    ({"sample_size": None}, "sample_size is None"), ({"sample_size": [4]}, "sample_size"), ({"sample_size": "4"}, "sample_size"),
    ({"sample_size": [8, 0]}, "sample_size"), ({"out_channels": 4}, "in_channels 2 and out_channels 4"),
    ({"in_channels": 9}, "inpainting"), ({"class_embed_type": "projection"}, "class_embed_type (=|is) 'projection'"),
    ({"_class_name": "UNet2DConditionModel", "addition_embed_type": "image"}, "addition_embed_type (=|is) 'image'"),
    ({"_class_name": "UNet2DConditionModel", "encoder_hid_dim_type": "ip_image_proj"},
     "encoder_hid_dim_type (=|is) 'ip_image_proj'"),
])  # fmt: skip
def test_a_network_that_is_not_supported_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        conditioning_bank(model(**UNET | change), recipe())


@pytest.mark.parametrize(("change", "settings", "message"), [
    ({}, {"conditioning": {"null_label": 5}}, "null_label: got 5, allowed 0-4"),
    ({"num_class_embeds": 1}, {"conditioning": {"null_label": 0}}, "the network's only class label"),
    ({"num_class_embeds": None}, {"sampler": {"guidance": 2.0}}, "takes no conditioning"),
    ({}, {"conditioning": {"prompts": Path("p.txt")}}, "takes no text"),
    ({}, {"conditioning": {"negative_prompt": "fog"}}, "takes no text"),
    (TEXT | {"num_class_embeds": None}, {}, "needs encoder_hidden_states, got none: give the folder of its whole pipeline"),
    (TEXT, {"conditioning": {"prompts": Path("p.txt")}}, "no model_index.json with a text encoder"),
])  # fmt: skip
def test_conditioning_that_does_not_fit_is_refused(
    change: dict[str, object], settings: dict[str, dict[str, object]], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        conditioning_bank(model(**UNET | change), recipe(**settings))
