"""What a config or a setting decides is refused before weights are read; defaults fit every number of steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dq_toolchain.calibrate.prepare import setup as module
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.toolchain.errors import ModelError, RecipeError, SamplerError, ToolchainError
from dq_toolchain.toolchain.recipe.loading import load_recipe
from tests.calibrate.conftest import tiny_recipe
from tests.tiny import write_tiny_model


def changed(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8, 9])
def test_the_default_of_step_groups_fits_every_number_of_steps(steps: int, tiny_model: Path, tmp_path: Path) -> None:
    sections: dict[str, dict[str, Any]] = {
        "model": {"path": tiny_model}, "sampler": {"steps": steps}, "run": {"out": tmp_path, "device": "cpu"},
        "calibrate": {"samples": 2},
    }  # fmt: skip
    context = setup(load_recipe(None, sections))
    assert len(context.step_groups) == (steps if steps <= 8 else 5)
    with pytest.raises(RecipeError, match=rf"step groups must be 1-{steps} .*got {steps + 1}; set --step-groups"):
        setup(load_recipe(None, sections | {"quantize": {"step_groups": steps + 1}}))


@pytest.mark.parametrize(("part", "change", "sections", "error", "text"), [
    ("scheduler/scheduler_config", {"clip_sample": True}, {}, SamplerError, "--no-clip"),
    ("scheduler/scheduler_config", {"num_train_timesteps": 10**9}, {}, SamplerError, "num_train_timesteps"),
    ("scheduler/scheduler_config", {"_class_name": "ScoreSdeVeScheduler"}, {}, SamplerError, "ScoreSdeVeScheduler"),
    ("unet/config", {"in_channels": 9}, {}, ModelError, "inpainting"),
    ("unet/config", {"class_embed_type": "projection"}, {}, ModelError, "class_embed_type"),
    ("unet/config", {"norm_eps": float("inf")}, {}, ModelError, "norm_eps is inf, allowed are finite numbers"),
    ("unet/config", {"num_class_embeds": None}, {"sampler": {"guidance": 3.0}}, RecipeError, "takes no conditioning"),
    ("unet/config", {}, {"conditioning": {"null_label": 99}}, RecipeError, "null_label: got 99"),
    ("unet/config", {}, {"conditioning": {"prompts": Path("p.txt")}}, RecipeError, "takes no text"),
    ("unet/config", {}, {"quantize": {"step_groups": 9}}, RecipeError, "step groups must be 1-4"),
])  # fmt: skip
def test_what_files_of_text_decide_is_refused_before_weights_are_read(
    part: str,
    change: dict[str, Any],
    sections: dict[str, dict[str, object]],
    error: type[ToolchainError],
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = write_tiny_model(tmp_path / "model")
    monkeypatch.setattr(module, "load", None)  # reads weights
    changed(folder / f"{part}.json", **change)
    with pytest.raises(error, match=text):
        setup(tiny_recipe(folder, tmp_path / "out", **sections))


def test_without_clipping_a_published_config_is_sampled_and_the_artifact_keeps_what_was_run(tmp_path: Path) -> None:
    folder, lines = write_tiny_model(tmp_path / "model"), list[str]()
    changed(folder / "scheduler" / "scheduler_config.json", clip_sample=True, lambda_min_clipped=-float("inf"))
    context = setup(tiny_recipe(folder, tmp_path / "out", sampler={"clip": False, "steps": 4}), warn=lines.append)
    assert context.model.scheduler_config["clip_sample"] is False
    assert context.model.scheduler_config["lambda_min_clipped"] == "-Infinity"
    assert [line for line in lines if "--no-clip sets clip_sample" in line]
