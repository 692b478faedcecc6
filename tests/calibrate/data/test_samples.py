"""Samples come from their own seeds, and take conditioning in turn."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler

from dq_toolchain.calibrate.data.samples import DISTINCT, FIT_STRIDE, calibration_seeds, draw, held_out_seeds
from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.recipe.loading import load_recipe
from dq_toolchain.toolchain.recipe.sections import Recipe
from dq_toolchain.toolchain.sampler.conditioning import Conditioning
from dq_toolchain.toolchain.sampler.probe import probe

TABLE = probe(DDIMScheduler(clip_sample=False), 3)
SHAPE = (2, 4, 4)
BANK = Conditioning({"class_labels": torch.tensor([3, 1])}, {"class_labels": torch.tensor([4])})


def recipe(**sections: dict[str, object]) -> Recipe:
    return load_recipe(None, sections)


def test_a_sample_depends_on_its_seed_alone() -> None:
    together, alone = draw(SHAPE, TABLE, BANK, [7, 8, 9]), draw(SHAPE, TABLE, BANK, [8])
    assert torch.equal(together.start[1], alone.start[0])
    assert not torch.equal(together.start[0], together.start[1])
    assert together.start.shape == (3, 2, 4, 4)
    assert together.step_noise is None


def test_noise_of_the_steps_is_drawn_for_samplers_that_add_it() -> None:
    table = probe(DDIMScheduler(clip_sample=False), 3, eta=1.0)
    together, alone = draw(SHAPE, table, BANK, [7, 8]), draw(SHAPE, table, BANK, [8])
    assert together.step_noise is not None
    assert alone.step_noise is not None
    assert together.step_noise.shape == (3, 2, 2, 4, 4)
    assert torch.equal(together.step_noise[:, 1], alone.step_noise[:, 0])
    assert torch.equal(together.select(slice(1, 2)).step_noise, alone.step_noise)  # type: ignore[arg-type]


def test_no_calibration_seed_is_held_out() -> None:
    with pytest.raises(RecipeError, match="seed"):
        recipe(run={"seed": 2**12 - 1})
    settings = recipe(run={"seed": 2**12 - 2}, calibrate={"samples": 100_000})  # the largest of both
    assert calibration_seeds(settings.run.seed, settings.calibrate.samples)[-1] < DISTINCT
    fitted = {*calibration_seeds(0, 1000), *calibration_seeds(1, 1000)}
    assert len(fitted) == 2000
    assert not fitted & set(held_out_seeds(4096))
    assert (
        held_out_seeds(100_000, first=100_000)[-1] < calibration_seeds(0, 1)[0]
    )  # the most of compare, and as many for its floor
    assert FIT_STRIDE > 100_000  # samples of one seed never reach the next


def test_no_held_out_noise_is_that_of_a_calibration_sample() -> None:
    def noise(seeds: list[int]) -> list[bytes]:
        return [row.numpy().tobytes() for row in draw(SHAPE, TABLE, BANK, seeds).start]

    drawn = [*noise(held_out_seeds(300))]
    for seed in (0, 1, 2, 3, 2047, 2048, 2**12 - 2):  # by the noise: generators do not tell all seeds apart
        drawn += noise(calibration_seeds(seed, 300))
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("seed", [2**32, 2**40, -1])
def test_a_seed_whose_noise_is_that_of_another_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=r"below 2\*\*32"):
        draw(SHAPE, TABLE, BANK, [0, seed])


def test_rows_of_the_bank_come_in_turn_each_tensor_by_itself() -> None:
    found = draw(SHAPE, TABLE, BANK, range(3)).conditioning
    assert found.cond["class_labels"].tolist() == [3, 1, 3]
    assert found.uncond["class_labels"].tolist() == [4, 4, 4]


@pytest.mark.parametrize(
    ("fitted", "labels", "words"), [(0, [3, 1, 3], [0, 1, 2]), (3, [3, 1, 3], [3, 4, 0]), (5, [3, 1, 3], [0, 1, 2])]
)
def test_held_out_samples_have_rows_that_calibration_does_not_take_where_there_are_more(
    fitted: int, labels: list[int], words: list[int]
) -> None:
    bank = Conditioning({**BANK.cond, "words": torch.arange(5)}, {})
    found = draw(SHAPE, TABLE, bank, range(3), fitted).conditioning.cond
    assert found["class_labels"].tolist() == labels
    assert found["words"].tolist() == words
