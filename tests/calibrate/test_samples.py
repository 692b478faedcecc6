"""Samples come from their own seeds, and what a UNet cannot be given is refused before anything runs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

from dq_toolchain.calibrate.samples import FIT_STRIDE, HELD_OUT, calibration_seeds, draw, held_out_seeds
from dq_toolchain.toolchain.errors import ModelError, RecipeError
from dq_toolchain.toolchain.files import write_tensors
from dq_toolchain.toolchain.probe import probe
from dq_toolchain.toolchain.recipe import Recipe, load_recipe

TABLE = probe(DDIMScheduler(clip_sample=False), 3)
UNET = {"sample_size": 4, "in_channels": 2, "out_channels": 2, "num_class_embeds": 5}


def unet(**changes: object) -> Any:
    """As much of a UNet as samples need: its config."""
    return SimpleNamespace(config=SimpleNamespace(**{**UNET, **changes}))


def recipe(**sections: dict[str, object]) -> Recipe:
    return load_recipe(None, {"conditioning": {"null_label": 4}, **sections})


def test_a_sample_depends_on_its_seed_alone() -> None:
    together, alone = draw(unet(), TABLE, recipe(), [7, 8, 9]), draw(unet(), TABLE, recipe(), [8])
    assert torch.equal(together.start[1], alone.start[0])
    assert not torch.equal(together.start[0], together.start[1])
    assert together.start.shape == (3, 2, 4, 4)
    assert together.step_noise is None


def test_noise_of_the_steps_is_drawn_for_samplers_that_add_it() -> None:
    table = probe(DDIMScheduler(clip_sample=False), 3, eta=1.0)
    together, alone = draw(unet(), table, recipe(), [7, 8]), draw(unet(), table, recipe(), [8])
    assert together.step_noise is not None
    assert alone.step_noise is not None
    assert together.step_noise.shape == (3, 2, 2, 4, 4)
    assert torch.equal(together.step_noise[:, 1], alone.step_noise[:, 0])
    assert torch.equal(together.select(slice(1, 2)).step_noise, alone.step_noise)  # type: ignore[arg-type]


def test_no_calibration_seed_is_held_out() -> None:
    with pytest.raises(RecipeError, match="seed"):
        recipe(run={"seed": 2**20})
    settings = recipe(run={"seed": 2**20 - 1}, calibrate={"samples": 100_000})  # the largest of both
    assert calibration_seeds(settings.run.seed, settings.calibrate.samples)[-1] < HELD_OUT
    fitted = {*calibration_seeds(0, 1000), *calibration_seeds(1, 1000)}
    assert len(fitted) == 2000
    assert not fitted & set(held_out_seeds(4096))
    assert FIT_STRIDE > 100_000  # samples of one seed never reach the next


def test_labels_come_in_turn_without_the_null_label() -> None:
    found = draw(unet(), TABLE, recipe(sampler={"guidance": 2.0}), range(6)).conditioning
    assert found.cond["class_labels"].tolist() == [0, 1, 2, 3, 0, 1]
    assert found.uncond["class_labels"].tolist() == [4] * 6
    assert draw(unet(), TABLE, recipe(sampler={"guidance": 1.0}), range(6)).conditioning.uncond == {}


def test_rows_of_a_file_come_in_turn(tmp_path: Path) -> None:
    write_tensors(tmp_path / "c", {"cond.class_labels": torch.tensor([3, 1]), "uncond.class_labels": torch.tensor([4])})
    settings = recipe(conditioning={"file": tmp_path / "c"}, sampler={"guidance": 2.0})
    found = draw(unet(), TABLE, settings, range(3)).conditioning
    assert found.cond["class_labels"].tolist() == [3, 1, 3]
    assert found.uncond["class_labels"].tolist() == [4, 4, 4]


@pytest.mark.parametrize(("changes", "message"), [
    ({"sample_size": None}, "sample_size is None"), ({"sample_size": [4]}, "sample_size"), ({"sample_size": "4"}, "sample_size"),
    ({"sample_size": [4, 0]}, "sample_size"), ({"out_channels": 4}, "in_channels 2 and out_channels 4"),
    ({"addition_embed_type": "text_time"}, "addition_embed_type = 'text_time'"),
    ({"class_embed_type": "projection"}, "class_embed_type = 'projection'"),
])
def test_a_network_that_is_not_supported_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        draw(unet(**changes), TABLE, recipe(), [0])


def test_a_latent_may_be_oblong() -> None:
    assert draw(unet(sample_size=[4, 6]), TABLE, recipe(), [0]).start.shape == (1, 2, 4, 6)


@pytest.mark.parametrize(("changes", "settings", "message"), [
    ({}, {"conditioning": {"null_label": 5}}, "null_label: got 5, allowed 0-4"),
    ({"num_class_embeds": 1}, {"conditioning": {"null_label": 0}}, "the UNet's only class label"),
    ({"num_class_embeds": None}, {"sampler": {"guidance": 2.0}}, "takes no conditioning"),
])
def test_conditioning_that_does_not_fit_is_refused(changes: dict[str, object], settings: dict[str, dict[str, object]],
                                                   message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        draw(unet(**changes), TABLE, recipe(**settings), [0])
