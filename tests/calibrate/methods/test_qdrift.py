"""Q-Drift keeps the distribution of latents when the network's output has noise in it, whatever the network predicts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor

from dq_toolchain.calibrate.methods import qdrift
from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.sampler.probe import probe
from dq_toolchain.toolchain.sampler.rollout import rollout
from dq_toolchain.toolchain.sampler.table import SamplerTable
from tests.calibrate.methods.conftest import Finished

SPREAD = 0.25
"""Variance of the images, which are white noise: then what a perfect network predicts is known."""
CALLS = 40

CASES: list[tuple[Any, str, float]] = [  # scheduler, what is predicted, variance of the planted error
    (DDIMScheduler(clip_sample=False), "epsilon", 0.3),
    (DDIMScheduler(clip_sample=False, prediction_type="v_prediction"), "v_prediction", 0.3),
    (EulerDiscreteScheduler(), "epsilon", 0.3),
    (EulerDiscreteScheduler(prediction_type="v_prediction"), "v_prediction", 0.3),
    (FlowMatchEulerDiscreteScheduler(), "flow_prediction", 0.3),
]


def perfect(kind: str, level: qdrift.Level, x: Tensor) -> Tensor:
    """The mean of what is predicted, given alpha * image + sigma * noise."""
    alpha, sigma = level
    total = alpha**2 * SPREAD + sigma**2
    noise, image = x * sigma / total, x * alpha * SPREAD / total
    return {"epsilon": noise, "sample": image, "v_prediction": alpha * noise - sigma * image}.get(kind, noise - image)


@pytest.mark.parametrize(("scheduler", "kind", "variance"), CASES)
def test_noise_in_the_output_does_not_widen_the_latents(scheduler: Any, kind: str, variance: float) -> None:
    table = probe(scheduler, CALLS)
    levels = qdrift.levels(table, {**scheduler.config, "_class_name": type(scheduler).__name__})
    drifting = table
    for k in range(CALLS):
        drifting = qdrift.drifting(drifting, k, torch.full((2,), variance), levels[k])
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(64, 2, 16, 16, generator=generator) * table.init_noise_sigma
    errors = torch.randn(CALLS, *start.shape, generator=generator) * variance**0.5

    def spread(of: SamplerTable, size: float) -> float:
        def network(x: Tensor, k: int) -> Tensor:
            f = perfect(kind, levels[k], x * of.input_scale[k]) + size * errors[k]
            return f if of.correction is None else of.correction.after(f, k)

        return float(rollout(of, network, start, last=CALLS - 1)[-1].var())

    right = spread(table, 0.0)
    assert spread(table, 1.0) > 1.02 * right
    assert abs(spread(drifting, 1.0) - right) < 0.3 * (spread(table, 1.0) - right)


@pytest.mark.parametrize("kind", ["sample", "v_prediction"])
def test_a_step_is_corrected_alike_whatever_the_network_predicts(kind: str) -> None:
    """An error in the image is one in the noise, so both have one drift, as a map of latent and noise."""
    as_noise, as_kind = (probe(DDIMScheduler(clip_sample=False, prediction_type=each), 8) for each in ("epsilon", kind))
    levels = qdrift.levels(as_noise, {"_class_name": "DDIMScheduler"})
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 4, 2, 8, 8, generator=generator).double()
    for k, level in enumerate(levels):
        of_latent, of_output = qdrift.noise_parts(kind, level)
        variance = torch.full((2,), 0.1, dtype=torch.float64)
        first = qdrift.drifting(as_noise, k, variance, level)
        second = qdrift.drifting(as_kind, k, variance / of_output**2, level)
        outputs = (noise, (noise - of_latent * x) / of_output)
        ends = [
            table.advance(k, [x], [table.correction.after(f, k)])
            for table, f in zip((first, second), outputs, strict=True)
            if table.correction is not None
        ]
        torch.testing.assert_close(ends[0], ends[1], rtol=1e-4, atol=1e-4)


def test_without_an_error_nothing_changes_nor_where_it_hides_the_noise() -> None:
    table = probe(DDIMScheduler(clip_sample=False, prediction_type="sample"), 5)
    levels = qdrift.levels(table, {"_class_name": "DDIMScheduler", "prediction_type": "sample"})
    for k, variance in ((2, 0.0), (4, 1e3)):
        same = qdrift.drifting(table, k, torch.full((2,), variance), levels[k])
        assert same.correction is not None
        assert same.correction.output_scale[k] == (1.0, 1.0)
        assert same.a == table.a


def test_the_form_for_euler_steps_and_noise_is_the_papers() -> None:
    scheduler = EulerDiscreteScheduler()
    table = probe(scheduler, 10)
    levels = qdrift.levels(table, {**scheduler.config, "_class_name": "EulerDiscreteScheduler"})
    sigmas = [-sum(row[0] for row in table.b[k:]) for k in range(10)]
    variance = torch.tensor([0.01, 0.04])
    for k in range(10):
        found = qdrift.drifting(table, k, variance, levels[k])
        assert found.correction is not None
        wanted = 1 + abs(table.b[k][0]) * variance / (2 * sigmas[k])
        assert found.correction.output_scale[k] == pytest.approx(tuple(wanted.tolist()), rel=1e-4)
        assert found.a == table.a


def test_the_variance_of_a_planted_error_is_measured_without_its_mean(finished: Finished) -> None:
    shifted, record = qdrift.correct(finished.damaged(1.0, 0.1), finished.trajectories)
    plain, alone = qdrift.correct(finished.artifact, finished.trajectories)
    assert torch.tensor(record["q_drift"]["variance"]).allclose(torch.tensor(alone["q_drift"]["variance"]), rtol=0.05)
    assert shifted.layers["conv_out"].weight_q is plain.layers["conv_out"].weight_q
    _, larger = qdrift.correct(finished.damaged(1.3, 0.0), finished.trajectories)
    ratio = torch.tensor(larger["q_drift"]["variance"]) / torch.tensor(alone["q_drift"]["variance"])
    assert ratio.min() > 2
    assert finished.final_error(plain) < 1.1 * finished.final_error(finished.artifact)


def test_samplers_that_look_back_are_refused_by_name() -> None:
    for scheduler in (DPMSolverMultistepScheduler(), EDMEulerScheduler()):
        with pytest.raises(RecipeError, match=rf"q-drift.*{type(scheduler).__name__}.*DDIMScheduler"):
            qdrift.check(probe(scheduler, 5))
    qdrift.check(probe(DDIMScheduler(clip_sample=False), 5, eta=0.5))
