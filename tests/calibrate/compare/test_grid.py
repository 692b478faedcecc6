"""The grid: every combination once, shared work side by side, names that are folders, mistakes named."""

from __future__ import annotations

import itertools

import pytest

from dq_toolchain.calibrate.compare.grid import Cell, expand, parse_bits, parse_methods, parse_steps, sampler_name
from dq_toolchain.toolchain.errors import RecipeError

KNOWN = ("accuquant", "mse", "tac")


def test_every_combination_is_there_once_in_the_order_of_shared_work() -> None:
    cells = expand("ddim", [20, 50], [(8, 8), (4, 8)], ["mse", "accuquant"], [0, 1])
    found = [(c.steps, c.seed, c.weight_bits, c.method) for c in cells]
    assert found == list(itertools.product([20, 50], [0, 1], [8, 4], ["mse", "accuquant"]))


def test_a_combination_follows_the_method_whose_fit_it_shares() -> None:
    cells = expand("ddim", [20], [(8, 8)], ["accuquant+tac", "mse", "accuquant", "mse+tac"], [0])
    assert [cell.method for cell in cells] == ["accuquant", "accuquant+tac", "mse", "mse+tac"]


def test_names_tell_cells_apart() -> None:
    assert Cell("ddim", 20, 4, 8, "accuquant", 0).name == "ddim20-w4a8-accuquant-s0"
    cells = expand("ddim", [2, 20], [(8, 8), (4, 8)], ["mse", "mse+tac"], [0, 1, 11])
    assert len({cell.name for cell in cells}) == len(cells) == 24


@pytest.mark.parametrize(
    ("scheduler", "name"),
    [
        ("DDIMScheduler", "ddim"),
        ("EulerDiscreteScheduler", "euler"),
        ("DPMSolverMultistepScheduler", "dpmsolvermultistep"),
    ],
)
def test_the_samplers_short_name(scheduler: str, name: str) -> None:
    assert sampler_name(scheduler) == name


def test_lists_are_read() -> None:
    assert parse_bits("W8A8, w4a6, W8A16") == [(8, 8), (4, 6), (8, 16)]
    assert parse_steps("20, 50") == [20, 50]
    assert parse_methods("mse,accuquant + tac", KNOWN) == ["mse", "accuquant+tac"]


@pytest.mark.parametrize("text", ["W9A8", "W1A8", "W4", "4", "", "W4A8,", "W4A8,w4a8", "W4A12", "W16A16", "W8A17"])
def test_wrong_bits_are_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="--bits: got"):
        parse_bits(text)


@pytest.mark.parametrize("text", ["0", "-5", "2.5", "1001", "many", "20,20", ",20"])
def test_wrong_steps_are_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="--steps: got"):
        parse_steps(text)


@pytest.mark.parametrize("text", ["odd", "mse+odd", "mse,mse", "tac+tac", "mse,,tac", "mse+", "MSE"])
def test_wrong_methods_are_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="--methods: got"):
        parse_methods(text, KNOWN)
