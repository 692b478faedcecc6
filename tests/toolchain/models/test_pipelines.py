"""Parts that steer a network are refused by name, and a class whose samples were not compared is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
from scripts.published.layouts import LAYOUTS

from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.models.objects import model_of_pipeline
from dq_toolchain.toolchain.models.pipelines import SAMPLED, parts_in, unlike
from dq_toolchain.toolchain.models.source import find_model
from tests.tiny_pipelines import save_sd


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sd(tmp_path_factory.mktemp("sd"))


def changed(folder: Path, to: Path, change: dict[str, Any]) -> Path:
    shutil.copytree(folder, to)
    path = to / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    return to


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("controlnet", ["diffusers", "ControlNetModel"]),
        ("controlnet", ["multicontrolnet", "MultiControlNetModel"]),
        ("adapter", ["diffusers", "T2IAdapter"]),
        ("motion_adapter", ["diffusers", "MotionAdapter"]),
        ("transformer_2", ["diffusers", "SD3Transformer2DModel"]),
    ],
)
def test_a_part_that_steers_the_network_is_refused_by_name(
    name: str, entry: list[str], folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=f"model_index.json: the pipeline has a part '{name}', allowed are unet, "):
        find_model(changed(folder, tmp_path / "model", {name: entry}))


def test_a_part_that_is_left_out_or_beside_the_sampling_is_none(folder: Path, tmp_path: Path) -> None:
    others = {
        "controlnet": [None, None], "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"], "id2label": {"0": "tench"},
    }  # fmt: skip
    assert find_model(changed(folder, tmp_path / "model", others)).is_pipeline


def test_the_same_holds_in_memory(folder: Path) -> None:
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    assert model_of_pipeline(pipeline, {"_class_name": "DDIMScheduler"}).pipeline is pipeline
    steered = diffusers.StableDiffusionControlNetPipeline(
        **pipeline.components, controlnet=diffusers.ControlNetModel.from_unet(pipeline.unet)
    )
    with pytest.raises(ModelError, match="StableDiffusionControlNetPipeline: the pipeline has a part 'controlnet'"):
        model_of_pipeline(steered, {"_class_name": "DDIMScheduler"})


def test_the_classes_are_diffusers_own_and_those_that_are_compared() -> None:
    assert {layout.pipeline for layout in LAYOUTS.values()} <= SAMPLED
    assert all(hasattr(diffusers, name) for name in SAMPLED)


@pytest.mark.parametrize(
    ("name", "is_said"),
    [
        ("StableDiffusionPipeline", False), ("FlaxStableDiffusionPipeline", False), ("StableDiffusionImg2ImgPipeline", False),
        (None, False), ("StableDiffusionPAGPipeline", True), ("StableDiffusionPanoramaPipeline", True),
        ("QwenImageEditPipeline", True), (["pipeline", "Own"], True),
    ],
)  # fmt: skip
def test_a_class_that_was_not_compared_is_named(name: object, is_said: bool) -> None:
    lines = unlike(name)
    assert len(lines) == is_said
    assert all("is no pipeline whose samples were compared" in line for line in lines)


def test_options_are_no_parts() -> None:
    index = {"_class_name": ["pipeline", "Own"], "layers": [10, 20], "pair": ["a", "b"], "unet": ["diffusers", "U"]}
    assert set(parts_in(index)) == {"pair", "unet"}
