"""The FP32 rollouts of the held-out seeds: run once, the same for every cell of those steps."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dq_toolchain.calibrate.compare import held_out as module
from dq_toolchain.calibrate.compare.held_out import PLAIN, held_out, identity_of
from dq_toolchain.calibrate.compare.locks import claim
from dq_toolchain.calibrate.compare.plan import Grid
from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.data.rollouts import Rollouts, rollouts_of
from dq_toolchain.calibrate.data.samples import held_out_seeds
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.toolchain.console.progress import Reporter
from tests.calibrate.conftest import with_room

QUIET = Reporter(quiet=True)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry per run of FP32 rollouts."""
    found: list[int] = []

    def counted(*arguments: Any, **named: Any) -> Rollouts:
        found.append(1)
        return rollouts_of(*arguments, **named)

    monkeypatch.setattr(module, "rollouts_of", counted)
    monkeypatch.setattr(module, "POLL", 0.01)
    return found


def test_rollouts_are_run_once_and_kept_bit_for_bit(grid: Grid, tmp_path: Path, runs: list[int]) -> None:
    first = held_out(grid.recipes[grid.cells[0]], 5, tmp_path, QUIET)
    again = held_out(grid.recipes[grid.cells[-1]], 5, tmp_path, QUIET)  # another method and calibration seed
    assert len(runs) == 1
    assert first.file == again.file
    assert torch.equal(first.latents, again.latents)
    assert torch.equal(first.outputs, again.outputs)
    assert tuple(first.latents.shape) == (4, 5, 1, 8, 8)
    assert torch.equal(first.latents[0], first.samples.start)
    assert held_out(grid.recipes[grid.cells[0]], 6, tmp_path, QUIET).file != first.file


def test_no_more_samples_run_at_once_than_have_room(
    grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, batches = grid.recipes[grid.cells[0]], list[int]()
    whole = held_out(recipe, 5, tmp_path / "whole", QUIET)

    def watched(*given: Any) -> Context:
        context = with_room(setup(*given), 2)
        context.network.register_forward_pre_hook(lambda _network, args: batches.append(len(args[0])))
        return context

    monkeypatch.setattr(module, "setup", watched)
    few = held_out(recipe, 5, tmp_path / "few", QUIET)
    assert set(batches) == {1, 2}
    torch.testing.assert_close(few.latents, whole.latents)  # in FP32 the batch changes rounding


def test_a_damaged_file_is_run_again(grid: Grid, tmp_path: Path, runs: list[int]) -> None:
    first = held_out(grid.recipes[grid.cells[0]], 3, tmp_path, QUIET)
    first.file.write_bytes(first.file.read_bytes()[:100])
    assert torch.equal(held_out(grid.recipes[grid.cells[0]], 3, tmp_path, QUIET).latents, first.latents)
    assert len(runs) == 2


def test_everything_that_decides_the_rollouts_is_in_their_identity(grid: Grid) -> None:
    recipe = grid.recipes[grid.cells[0]]
    context = setup(recipe, PLAIN)
    samples = context.draw(held_out_seeds(4))
    other = replace(samples, conditioning=samples.conditioning.select(torch.tensor([1, 0, 2, 3])))
    found = {
        identity_of(context, samples, 1.0),
        identity_of(context, samples, 3.0),
        identity_of(context, other, 1.0),
        identity_of(context, replace(samples, start=samples.start + 1), 1.0),
        identity_of(context, samples.select(slice(0, 3)), 1.0),
        identity_of(replace(context, model=replace(context.model, weight_hash="other")), samples, 1.0),
        identity_of(replace(context, table=replace(context.table, timesteps=(900.0, 500.0, 1.0))), samples, 1.0),
    }
    assert len(found) == 7
    assert identity_of(context, samples, 1.0) in found


def test_who_finds_another_at_it_waits_for_the_file(grid: Grid, tmp_path: Path, runs: list[int]) -> None:
    recipe = grid.recipes[grid.cells[0]]
    file = held_out(recipe, 3, tmp_path / "elsewhere", QUIET).file
    got: list[object] = []
    waiting = threading.Thread(target=lambda: got.append(held_out(recipe, 3, tmp_path, QUIET)))
    with claim(tmp_path / f"{file.stem}.lock") as ours:
        assert ours
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        (tmp_path / file.name).write_bytes(file.read_bytes())
    waiting.join(20)
    assert len(got) == len(runs) == 1
