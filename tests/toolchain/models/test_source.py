"""What --model names: the folder's index, the network's class, and what is refused before any weight is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.models.source import find_model, pipeline_index
from tests.tiny import write_tiny_model


def write_index(folder: Path, content: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "model_index.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_the_index_of_a_published_pipeline_is_read_as_it_is(tmp_path: Path) -> None:
    index = {
        "_class_name": "DiTPipeline", "_diffusers_version": "0.12.0.dev0", "id2label": {"0": "tench"},
        "scheduler": ["diffusers", "DDIMScheduler"], "transformer": ["diffusers", "Transformer2DModel"], "vae": [None, None],
        "text_encoder": None, "force_zeros_for_empty_prompt": True, "layers": [10, 20, 30],
    }  # fmt: skip
    assert pipeline_index(write_index(tmp_path, index)) == index
    assert pipeline_index(write_index(tmp_path, {"_class_name": ["pipeline", "Own"]}))["_class_name"] == [
        "pipeline",
        "Own",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "holds a list, expected a JSON object"),
        ("{", "is not valid JSON"),
        ({"unet": "UNet2DModel"}, "unet is 'UNet2DModel', allowed is"),
        ({"unet": ["diffusers"]}, "unet is .*allowed is"),
        ({"vae": [1, 2]}, "vae is"),
        ({"tokenizer": {}}, "tokenizer is"),
        ({"_class_name": 3}, "_class_name is '3', allowed is the name of a pipeline's class"),
    ],
)
def test_a_broken_index_is_named(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"model_index\.json.*{message}"):
        pipeline_index(write_index(tmp_path, content))


def test_the_network_is_of_the_class_that_the_index_names_where_its_config_names_none(tmp_path: Path) -> None:
    folder = write_index(write_tiny_model(tmp_path / "m"), {"unet": ["diffusers", "UNet2DModel"]})
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_class_name": None}))
    assert find_model(folder).config["_class_name"] == "UNet2DModel"


@pytest.mark.parametrize(
    ("network", "missing"),
    [
        ("HunyuanDiT2DModel", "its two texts with their masks, sizes of the picture and style"),
        ("Lumina2Transformer2DModel", "a form of one length for all, as Z-Image has here, is missing"),
        ("SD3ControlNetModel", "a ControlNet steers another network"),
        ("AuraFlowTransformer2DModel", "other networks are not supported"),
    ],
)
def test_another_network_is_refused_in_a_line_that_says_what_is_missing(
    network: str, missing: str, tmp_path: Path
) -> None:
    folder = write_index(tmp_path / "m", {"transformer": ["diffusers", network]})
    (folder / "transformer").mkdir()
    (folder / "transformer" / "config.json").write_text(json.dumps({"_class_name": network}))
    with pytest.raises(
        ModelError, match=rf"config\.json: _class_name is '{network}', allowed are .*; .*{missing}"
    ) as caught:
        find_model(folder)
    assert "\n" not in str(caught.value)


def test_a_scheduler_that_is_not_there_is_named_with_its_flag(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"scheduler_config\.json: no such file; --scheduler takes a folder"):
        find_model(write_tiny_model(tmp_path / "m"), scheduler=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([], "model_index.json holds a list"),
        ({"unet": "x"}, "unet is 'x'"),
        ({"requires_aesthetics_score": True}, "a refiner .requires_aesthetics_score.*give the base model"),
        ({"unet": ["pipeline", "OwnUNet"]}, "class 'OwnUNet' from the model's own code .pipeline., which is never run"),
        (
            {"unet": ["diffusers", "UNet2DConditionModel"]},
            "_class_name is 'UNet2DModel', but model_index.json says 'UNet2DConditionModel'",
        ),
    ],
)
def test_what_the_index_decides_is_refused_before_the_weights(index: Any, message: str, tmp_path: Path) -> None:
    folder = write_index(write_tiny_model(tmp_path), index)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ModelError, match=message):
        find_model(folder)


def test_the_index_names_the_class_that_an_old_config_does_not(tmp_path: Path) -> None:
    folder = write_index(
        write_tiny_model(tmp_path), {"_class_name": ["pipeline", "Own"], "unet": ["diffusers", "UNet2DModel"]}
    )
    path = folder / "unet" / "config.json"
    config = json.loads(path.read_text())
    del config["_class_name"], config["norm_eps"]
    path.write_text(json.dumps(config))
    found = find_model(folder)
    assert found.config["_class_name"] == "UNet2DModel"
    assert found.config["norm_eps"] == 1e-5


def test_a_pipeline_of_other_parts_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"a pipeline of class 'StableCascadeDecoderPipeline' without unet or transformer/config\.json"
    ):
        find_model(
            write_index(tmp_path, {"_class_name": "StableCascadeDecoderPipeline", "decoder": ["stable_cascade", "X"]})
        )
