"""A fit is its phases in order: each says what it needs, and a method brings a phase of its own without a change elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from dq_toolchain.calibrate import methods
from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.fitting.blocks import BLOCKS
from dq_toolchain.calibrate.fitting.memory import FINISHED
from dq_toolchain.calibrate.fitting.multi_step import MULTI_STEP
from dq_toolchain.calibrate.fitting.phase import FitResult, Needs, Phase, Work, phases_of
from dq_toolchain.calibrate.fitting.run import check_workers
from dq_toolchain.calibrate.fitting.second_order import SECOND_ORDER
from dq_toolchain.calibrate.methods import resolve, with_settings
from dq_toolchain.calibrate.methods.base import Method, add
from dq_toolchain.calibrate.methods.ranges import MSE
from dq_toolchain.calibrate.network.activation_memory import ActivationMemory
from dq_toolchain.calibrate.pipeline import calibrated
from dq_toolchain.calibrate.prepare import identity
from dq_toolchain.calibrate.prepare.memory import estimate
from dq_toolchain.calibrate.prepare.settings import deciding
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.calibrate.work.workers import Workers
from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.recipe.sections import Recipe
from tests.calibrate.conftest import QUIET, tiny_recipe


class Halve(Phase):
    """Halves the scale of every activation, and counts how often it was asked to."""

    name: ClassVar[str] = "halve"
    alone: ClassVar[str] = "halves scales"
    runs = 0

    @torch.no_grad()
    def run(self, work: Work) -> FitResult:
        assert work.trajectories.targets.outputs.shape[1] == work.recipe.calibrate.samples
        Halve.runs += 1
        for scale in work.network.scale_parameters().values():
            scale.sub_(torch.log(torch.tensor(2.0)))
        return FitResult([{"stage": self.name}], None, 1.0)

    def needs(self, context: Context, recipe: Recipe, one: ActivationMemory) -> Needs:
        return Needs(per_weight=100.0, host=7)

    def hyper_parameters(
        self, recipe: Recipe, block_options: Mapping[str, Any], step_groups: Iterable[tuple[int, ...]]
    ) -> dict[str, Any]:
        return {"factor": 0.5}


HALVED = Method("halved", base=MSE, fit=(Halve(),))


@pytest.fixture
def halved(monkeypatch: pytest.MonkeyPatch) -> None:
    """The method as if a file of ``calibrate/methods`` offered it."""
    known = methods._all() | {HALVED.name: HALVED}
    monkeypatch.setattr(methods, "_all", lambda: known)
    monkeypatch.setattr(Halve, "runs", 0)


def _recipe(model: Path, out: Path, method: str, **calibrate: object) -> Recipe:
    recipe = tiny_recipe(model, out, quantize={}, calibrate={"method": method, **calibrate})
    return with_settings(recipe, resolve(method), as_published=True)


@pytest.mark.usefixtures("halved")
def test_a_method_brings_a_phase_of_its_own(tiny_model: Path, tmp_path: Path) -> None:
    plain, made = (
        calibrated(_recipe(tiny_model, tmp_path, method), QUIET, tmp_path / "work").artifact
        for method in ("mse", "halved")
    )
    assert Halve.runs == 1
    assert made.record["stages"] == [{"stage": "halve"}]
    assert made.record["method"]["fit"] == {"halve": {"factor": 0.5}}
    torch.testing.assert_close(made.scale, plain.scale / 2, rtol=1e-3, atol=0)
    for name, layer in plain.layers.items():
        assert torch.equal(made.layers[name].weight_q, layer.weight_q)


@pytest.mark.usefixtures("halved")
def test_its_needs_and_hyper_parameters_count(tiny_model: Path, tmp_path: Path) -> None:
    recipe = _recipe(tiny_model, tmp_path, "halved")
    context, mse = setup(recipe), resolve("mse")
    context = replace(context, model=replace(context.model, in_pages={}))  # weights in memory, which count
    plain, own = (estimate(context, recipe, method) for method in (mse, resolve("halved")))
    weights = sum(parameter.numel() for parameter in context.network.parameters())
    assert (own.weights, plain.weights) == (4 * 100 * weights, 4 * int(FINISHED * weights))
    assert own.host == plain.host + 7
    shape = (1, len(context.prepared.sites))
    scale, zero_point = torch.ones(shape), torch.zeros(shape, dtype=torch.int32)
    keys = {identity.of_fit("", context, recipe, each, scale, zero_point, None) for each in (mse, resolve("halved"))}
    assert len(keys) == 2
    assert "blocks" not in deciding(recipe, resolve("halved"))


def test_several_processes_are_refused_where_one_does_the_work(tiny_model: Path, tmp_path: Path) -> None:
    recipe = _recipe(tiny_model, tmp_path, "mse")
    check_workers("mse", (), recipe, Workers(0, 2), ((0, 1),))
    with pytest.raises(RecipeError, match=r"2 processes .* but halved halves scales, which one process does"):
        check_workers("halved", HALVED.fit, recipe, Workers(0, 2), ((0, 1),))


@pytest.mark.parametrize(
    ("rounding", "offload", "wanted"),
    [
        ("learned", False, (MULTI_STEP,)),
        ("learned", True, (BLOCKS, MULTI_STEP)),
        ("nearest", True, (MULTI_STEP,)),
        ("closed-form", False, (SECOND_ORDER, MULTI_STEP)),
        ("closed-form", True, (SECOND_ORDER, MULTI_STEP)),
        ("closed-form+learned", False, (SECOND_ORDER, MULTI_STEP)),
    ],
)
def test_rounding_that_cannot_be_learned_at_once_is_learned_block_after_block(
    rounding: str, offload: bool, wanted: tuple[Phase, ...], tiny_model: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(tiny_model, tmp_path, calibrate={"rounding": rounding}, run={"offload": offload})
    assert phases_of(resolve("accuquant").fit, recipe) == wanted
    assert phases_of((BLOCKS, MULTI_STEP), recipe)[0] == BLOCKS


def test_offload_refuses_to_learn_from_closed_form_rounding(tiny_model: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tiny_model, tmp_path, calibrate={"rounding": "closed-form+learned"}, run={"offload": True})
    with pytest.raises(RecipeError, match=r"rounding: got 'closed-form\+learned'.*'closed-form'.*choose one"):
        phases_of(resolve("accuquant").fit, recipe)


def test_two_methods_that_fit_do_not_go_together() -> None:
    with pytest.raises(RecipeError, match="both fit weights"):
        add(HALVED.whole(), resolve("accuquant"))
