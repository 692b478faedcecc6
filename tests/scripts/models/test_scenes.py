"""What models/scenes was trained with: captions say their scene, the judge reads it, a checkpoint holds all, ids fit CLIP's."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scripts.models.scenes.captions import WORDS, caption
from scripts.models.scenes.checkpoint import Averaged, Checkpoint
from scripts.models.scenes.folder import read_tokenizer
from scripts.models.scenes.judge import judge
from scripts.models.scenes.text import Vocabulary
from scripts.models.scenes.world import ALONE, COLOURS, PLACES, Scene, Thing, any_scene, paint
from torch import Tensor, nn

from dq_toolchain.toolchain.verdict.features import ClassifierFeatures

TOKENIZER = Path(__file__).parents[3] / "models" / "scenes" / "tokenizer"
LINE = torch.arange(28) - 13.5
RADIUS = ((LINE[:, None] / 10).square() + (LINE[None, :] / 8).square()).sqrt()
RING = (1 - (RADIUS - 0.8).abs() * 5).clamp(0, 1)
BAR = ((LINE[None, :].abs() < 1.6) & (LINE[:, None].abs() < 10)).float()
INK = {0: RING, 1: BAR}
"""A zero and a one, drawn without data."""


def picture(scene: Scene) -> Tensor:
    return paint(scene, [INK[thing.digit] for thing in scene.things], random.Random(0))


@pytest.mark.parametrize("seed", range(20))
def test_a_whole_caption_says_everything(seed: int) -> None:
    draw = random.Random(seed)
    scene = any_scene(draw)
    words = caption(scene, draw, whole=True).replace(",", "").split()
    assert scene.background in words
    for thing in scene.things:
        assert {WORDS[thing.digit], str(thing.digit)} & set(words)
        assert {thing.colour, *([thing.size] if thing.size else [])} <= set(words)


ONE = Scene((Thing(0, "white", "large"),), "blue", "middle")
TWO = Scene((Thing(1, "red", ""), Thing(0, "black", "large")), "yellow", "beside")
OVER = Scene((Thing(0, "green", "small"), Thing(1, "pink", "large")), "purple", "stacked")
AT_THE_SIDE = Scene((Thing(1, "orange", "small"),), "black", "left")
SCENES = [ONE, TWO, OVER, AT_THE_SIDE]


def test_the_judge_sees_what_is_there() -> None:
    verdicts = judge(SCENES, torch.stack([picture(scene) for scene in SCENES]), ClassifierFeatures())
    assert {name: verdict.tolist() for name, verdict in verdicts.items()} == {name: [True] * 4 for name in verdicts}


@pytest.mark.parametrize(
    ("drawn", "asked", "wrong"),
    [
        (ONE, replace(ONE, background="green"), "background"),
        (ONE, replace(ONE, things=(replace(ONE.things[0], digit=1),)), "digits"),
        (ONE, replace(ONE, things=(replace(ONE.things[0], colour="pink"),)), "colours"),
        (ONE, replace(ONE, things=(replace(ONE.things[0], size="small"),)), "sizes"),
        (AT_THE_SIDE, replace(AT_THE_SIDE, place="right"), "places"),
        (TWO, replace(TWO, things=TWO.things[::-1]), "digits"),
    ],
)
def test_the_judge_sees_what_is_not_there(drawn: Scene, asked: Scene, wrong: str) -> None:
    verdicts = judge([asked], picture(drawn)[None], ClassifierFeatures())
    assert not verdicts[wrong].item()
    assert not verdicts["all"].item()
    assert verdicts["background"].item() == (wrong != "background")


def test_a_flat_picture_shows_nothing() -> None:
    verdicts = judge([ONE], torch.zeros(1, 3, 64, 64), ClassifierFeatures())
    assert not any(verdict.item() for verdict in verdicts.values())


def test_scenes_at_random_have_everything() -> None:
    draw = random.Random(0)
    scenes = [any_scene(draw) for _ in range(2000)]
    things = [thing for scene in scenes for thing in scene.things]
    assert {scene.background for scene in scenes} == {thing.colour for thing in things} == set(COLOURS)
    assert {thing.digit for thing in things} == set(range(10))
    assert {thing.size for thing in things} == set(ALONE)
    assert {scene.place for scene in scenes} == {*PLACES, "beside", "stacked"}
    assert all(thing.colour != scene.background for scene in scenes for thing in scene.things)


def test_the_small_embedding_is_the_whole_one_for_words_of_captions() -> None:
    vocabulary = Vocabulary(read_tokenizer(TOKENIZER))
    small = vocabulary.small_encoder().eval()
    whole = vocabulary.whole_encoder(small)
    prompts = ["a large red seven on a blue background", "", "a zebra"]
    with torch.no_grad():
        got, want = whole(vocabulary.ids(prompts)), small(vocabulary.rows(prompts))
    torch.testing.assert_close(got.last_hidden_state, want.last_hidden_state)
    assert (vocabulary.rows(prompts) == 0).any(1).tolist() == [False, False, True]
    assert (vocabulary.rows(prompts[:1], unknown=1.0) == 0).sum() == len(prompts[0].split())


def test_a_run_that_was_killed_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    def fresh() -> Averaged:
        return Averaged([nn.Linear(3, 2), nn.Linear(2, 1)], 1e-2)

    def go_on(run: Averaged, steps: int) -> None:
        generator = torch.Generator().manual_seed(run.steps)
        for _ in range(steps):
            run.step(run.networks[1](run.networks[0](torch.randn(4, 3, generator=generator))).square().mean(), 1e-2)

    file, run = Checkpoint(tmp_path / "run.safetensors"), fresh()
    assert file.restore(run) == (0, 0.0)
    go_on(run, 3)
    file.save(run, 3, 1.5)
    again = fresh()
    assert file.restore(again) == (3, 1.5)
    go_on(run, 2)
    go_on(again, 2)
    for name, weight in run.weights.items():
        assert torch.equal(again.weights[name], weight)
        assert torch.equal(again.averaged[name], run.averaged[name])
        assert not torch.equal(weight, run.averaged[name])
