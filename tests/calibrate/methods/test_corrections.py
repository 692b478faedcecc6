"""Corrections at run time undo the errors they are made for, when those are planted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from safetensors.torch import save_file

from dq_toolchain.calibrate.methods import ptqd, qncd, stepbaq, tac
from dq_toolchain.calibrate.methods.base import Finish
from dq_toolchain.calibrate.methods.corrections import Step, with_step
from dq_toolchain.calibrate.run import calibrate
from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.recipe.loading import load_recipe
from dq_toolchain.toolchain.sampler.probe import probe
from tests import tiny_pipelines
from tests.calibrate.conftest import QUIET, streamed_elsewhere, with_room
from tests.calibrate.methods.conftest import Finished, finish
from tests.tiny import write_tiny_model


@pytest.mark.parametrize(("correct", "shift"), [(ptqd.correct, 0.1), (tac.correct, 0.0)])
def test_a_planted_gain_and_shift_are_undone(correct: Finish, shift: float, finished: Finished) -> None:
    damaged = finished.damaged(1.15, shift)
    corrected, record = correct(damaged, finished.trajectories)
    assert finished.final_error(corrected) < 0.15 * finished.final_error(damaged)
    assert record
    assert corrected.layers is damaged.layers  # nothing but the table changes


def test_a_planted_shift_is_undone_by_the_mean_error(finished: Finished) -> None:
    damaged = finished.damaged(1.0, 0.1)
    corrected, record = qncd.subtract_mean(damaged, finished.trajectories)
    assert finished.final_error(corrected) < 0.15 * finished.final_error(damaged)
    assert record["qncd"]["mean_error"] == pytest.approx([0.1], abs=0.02)  # one estimate serves ten steps


def test_an_undamaged_network_is_not_made_worse(finished: Finished) -> None:
    before = finished.final_error(finished.artifact)
    for correct in (ptqd.correct, tac.correct, qncd.subtract_mean, stepbaq.correct):
        assert finished.final_error(correct(finished.artifact, finished.trajectories)[0]) < 1.1 * before


def test_no_more_samples_run_at_once_than_have_room(finished: Finished, simulated: list[int]) -> None:
    roomy = replace(finished.trajectories, context=with_room(finished.context, 2))
    whole, few = (tac.correct(finished.artifact, run) for run in (finished.trajectories, roomy))
    assert set(simulated) == {2, len(finished.trajectories.samples)}
    assert few[0].table == whole[0].table


def test_where_weights_are_streamed_the_quantized_network_runs_on_the_host(finished: Finished) -> None:
    streamed = replace(finished.trajectories, context=streamed_elsewhere(finished.context))
    here, there = (tac.correct(finished.artifact, run) for run in (finished.trajectories, streamed))
    assert there[0].table == here[0].table
    assert there[1] == here[1]


def test_an_artifact_with_a_correction_loads_where_a_token_is_several_places_of_the_latent(tmp_path: Path) -> None:
    network = tiny_pipelines.flux()
    network.register_to_config(sample_size=8)
    network.save_pretrained(tmp_path / "model" / "transformer")
    FlowMatchEulerDiscreteScheduler().save_pretrained(tmp_path / "model" / "scheduler")
    config = network.config
    rows = {
        "cond.encoder_hidden_states": torch.randn(9, 5, config.joint_attention_dim),
        "cond.pooled_projections": torch.randn(9, config.pooled_projection_dim),
    }
    save_file(rows, tmp_path / "rows.safetensors")
    settings: dict[str, dict[str, Any]] = {
        "model": {"path": tmp_path / "model"},
        "run": {"out": tmp_path / "out", "device": "cpu"},
        "sampler": {"steps": 2},
        "conditioning": {"file": tmp_path / "rows.safetensors"},
        "calibrate": {"method": "mse+tac", "samples": 4},
        "reference": {"seeds": 2},
    }
    folder, _, reference = calibrate(load_recipe(None, settings), QUIET)
    correction = Artifact.load(folder).table.correction
    assert correction is not None
    assert correction.channels == reference.start.shape[1] == config.in_channels // 4


def test_ptqds_fit_finds_what_was_planted_and_falls_back() -> None:
    generator = torch.Generator().manual_seed(0)
    r, noise = torch.randn(64, 3, 8, 8, generator=generator), torch.randn(64, 3, 8, 8, generator=generator)
    shift = torch.tensor([0.2, 0.0, -0.1])
    found = ptqd.fit_noise(1.3 * r + shift.view(-1, 1, 1) + 0.1 * noise, r)
    assert found.slope == pytest.approx(0.3, abs=0.01)
    assert found.deviation == pytest.approx(0.1, abs=0.005)
    torch.testing.assert_close(found.mean, shift, atol=0.01, rtol=0)
    assert ptqd.fit_noise(0.7 * r, r).slope == 0.0  # the paper clips the slope at 0
    unrelated = ptqd.fit_noise(r + 0.1 * noise, r)
    assert unrelated.slope == 0.0
    assert unrelated.r2 < ptqd.LEAST_R2


def test_ptqd_takes_the_residuals_variance_from_the_samplers_noise(tiny_model: Path, tmp_path: Path) -> None:
    noisy = finish(tiny_model, tmp_path, sampler={"steps": 4, "eta": 1.0})
    corrected, record = ptqd.correct(noisy.artifact, noisy.trajectories)
    table = noisy.artifact.table
    for k in range(table.calls):
        taken = table.b[k][0] * record["ptqd"]["deviation"][k] / (1 + record["ptqd"]["slope"][k])
        assert corrected.table.c[k] ** 2 == pytest.approx(max(0.0, table.c[k] ** 2 - taken**2), abs=1e-9)
    assert corrected.table.c != table.c


def test_tacs_scale_minimises_its_objective() -> None:
    generator = torch.Generator().manual_seed(1)
    r = torch.randn(500, generator=generator)
    q = 1.2 * r + 0.05 * torch.randn(500, generator=generator)
    large = r.abs() > r.abs().mean()
    found = float(tac.best_scale(q, r))

    def objective(scale: float) -> float:
        relative = (scale * q[large] / r[large] - 1).square().sum()
        count = int(large.sum())
        absolute = (scale * q[large] - r[large]).square().sum()
        tie = tac.TIE * count * (scale - 1) ** 2
        return float((1 - tac.RELATIVE) * absolute + tac.RELATIVE * count * relative + tie)

    assert objective(found) <= min(objective(found + step) for step in (-0.01, 0.01))
    assert found == pytest.approx(1 / 1.2, abs=0.05)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_stepbaqs_coefficients_are_the_probed_ones(kind: str) -> None:
    scheduler = DDIMScheduler(clip_sample=False, prediction_type=kind)
    table, alphas = probe(scheduler, 10), scheduler.alphas_cumprod.double()
    for k in range(table.calls):
        start = stepbaq._level(float(alphas[int(table.timesteps[k])]))
        end = stepbaq._next_level(start, table.a[k][0], table.b[k][0], kind)
        assert sum(part**2 for part in end) == pytest.approx(1, abs=1e-6)
        assert stepbaq._coefficients(start, end, kind) == pytest.approx((table.a[k][0], table.b[k][0]), abs=1e-6)


def test_stepbaq_goes_back_in_time_as_far_as_the_error_says(finished: Finished) -> None:
    damaged = finished.damaged(1.3, 0.0)
    corrected, record = stepbaq.correct(damaged, finished.trajectories)
    table, taken = damaged.table, record["stepbaq"]["timesteps"]
    assert taken[0] == table.timesteps[0]  # no error has been made yet
    assert all(tau >= t for tau, t in zip(taken, table.timesteps, strict=True))
    assert any(tau > t for tau, t in zip(taken, table.timesteps, strict=True))
    assert corrected.table.timesteps == tuple(map(float, taken))


def test_stepbaq_begins_at_a_timestep_without_signal(tmp_path: Path) -> None:
    """Where no error has been made yet, and goes back there from no other."""
    scheduler = DDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False
    )
    model = write_tiny_model(tmp_path / "model")
    scheduler.save_pretrained(model / "scheduler")
    assert scheduler.alphas_cumprod[-1] == 0
    made = finish(model, tmp_path)
    damaged = made.damaged(1.3, 0.0)
    corrected, record = stepbaq.correct(damaged, made.trajectories)
    assert record["stepbaq"]["timesteps"][0] == damaged.table.timesteps[0] == 999
    assert corrected.table.a[0] == pytest.approx(damaged.table.a[0])
    assert corrected.table.b[0] == pytest.approx(damaged.table.b[0])
    assert made.final_error(corrected) < made.final_error(damaged)
    alphas = scheduler.alphas_cumprod.double()
    assert stepbaq._like(alphas, 998, 1e6) == 998
    assert stepbaq._like(alphas, 999, 1.0) == 999


def test_stepbaq_refuses_samplers_that_it_cannot_step_back_in() -> None:
    for table in (probe(DPMSolverMultistepScheduler(), 5), probe(DDIMScheduler(clip_sample=False), 5, eta=0.5)):
        with pytest.raises(RecipeError, match=r"stepbaq.*DDIM"):
            stepbaq.check(table)
    stepbaq.check(probe(DDIMScheduler(clip_sample=False), 5))


def test_a_second_correction_stands_on_the_first(finished: Finished) -> None:
    table, x = finished.artifact.table, torch.full((1, 1, 2, 2), 3.0)
    one = with_step(table, 1, Step(torch.tensor([2.0]), torch.tensor([1.0]), torch.tensor([0.5])))
    two = with_step(one, 1, Step(torch.tensor([10.0]), torch.tensor([4.0]), torch.tensor([0.25])))
    assert two.correction is not None
    assert two.correction.after(x, 1).unique().tolist() == [10 * (2 * 3 + 1) + 4]
    assert two.correction.before(x, 1).unique().tolist() == [3.75]
    assert two.correction.after(x, 0).unique().tolist() == [3.0]
