"""Iterations in parts, for which memory decides the size, are continued in the parts that they began in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.methods import resolve
from dq_toolchain.calibrate.multistep.fit import MultiStepFit
from dq_toolchain.calibrate.multistep.problem import Problem
from dq_toolchain.calibrate.network.activation_memory import ActivationMemory
from dq_toolchain.calibrate.pipeline import calibrated
from dq_toolchain.calibrate.prepare import memory
from dq_toolchain.calibrate.prepare import setup as module
from dq_toolchain.calibrate.prepare.gradient_batch import as_it_began
from dq_toolchain.calibrate.prepare.memory import estimate, held
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.calibrate.work import checkpoint
from dq_toolchain.calibrate.work.checkpoint import CheckpointFile
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.formats.artifact import Artifact
from tests.calibrate.conftest import QUIET, tiny_recipe

ACCUQUANT = resolve("accuquant")


@pytest.mark.parametrize("after", [0, 3], ids=["before-the-first-checkpoint", "behind-it"])
def test_a_run_that_continues_with_more_memory_ends_in_the_same_bits(
    after: int, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SMALL_NETWORK", 0)
    monkeypatch.setattr(checkpoint, "SECONDS_BETWEEN", 0.0)
    recipe = tiny_recipe(tiny_model, tmp_path, calibrate={"batch": 32, "samples": 40, "horizon": 1})
    context = setup(recipe)
    least, whole = (
        estimate(context, recipe, ACCUQUANT, in_parts=parts).on(context.device) - held(context, recipe)
        for parts in (True, False)
    )
    iterate, parts_of, parts = MultiStepFit._iterate, Problem.parts, set[int]()

    def killed(self: MultiStepFit, *args: object) -> object:
        if self.progress.iteration == after:
            raise KeyboardInterrupt
        return iterate(self, *args)  # type: ignore[arg-type]

    def counted(self: Problem, *args: object) -> object:
        found = parts_of(self, *args)  # type: ignore[arg-type]
        parts.add(len(found))
        return found

    def made(work: str, free: int) -> Artifact:
        monkeypatch.setattr(memory, "free_on", lambda _device: free)
        return calibrated(recipe, QUIET, tmp_path / work).artifact

    monkeypatch.setattr(Problem, "parts", counted)
    straight = made("straight", (least + whole) // 2)
    assert max(parts) > 1
    monkeypatch.setattr(MultiStepFit, "_iterate", killed)
    with pytest.raises(KeyboardInterrupt):
        made("killed", (least + whole) // 2)
    monkeypatch.setattr(MultiStepFit, "_iterate", iterate)
    again = made("killed", 2 * whole)
    assert torch.equal(again.scale, straight.scale)
    assert all(torch.equal(again.layers[name].weight_q, layer.weight_q) for name, layer in straight.layers.items())
    assert all(torch.equal(again.float_parameters[name], own) for name, own in straight.float_parameters.items())


def test_what_needs_more_memory_than_is_free_now_is_said(context: Context, tmp_path: Path) -> None:
    class Heard(Reporter):
        def warn(self, text: str) -> None:
            lines.append(text)

    lines: list[str] = []
    for number, (began, now) in enumerate([(8, 3), (None, 3), (3, None), (None, None), (3, 3)]):
        file = CheckpointFile.of(tmp_path, "parts", f"{number:064}")
        for batch in (began, now):
            found = as_it_began(replace(context, gradient_batch=batch), file, Heard(quiet=True))
            assert found.gradient_batch == began
    assert len(lines) == 2
    assert all(text in line for text, line in zip(("parts of 8 samples", "whole iterations"), lines, strict=True))


@pytest.fixture
def context(tiny_model: Path, tmp_path: Path) -> Context:
    return replace(setup(tiny_recipe(tiny_model, tmp_path)), activation_memory=ActivationMemory(1, 1, 1))


def test_of_a_small_network_nothing_is_written(context: Context, tmp_path: Path) -> None:
    small = replace(context, activation_memory=None)
    assert as_it_began(small, CheckpointFile.of(tmp_path, "parts", "0" * 64), QUIET) is small
    assert not list(tmp_path.glob("parts-*"))
