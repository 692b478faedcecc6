"""The growth of a step's error until the end: its closed form where the network is linear, and its use in drawing."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from torch import Tensor, nn

from dq_toolchain.calibrate.data.rollouts import Rollouts
from dq_toolchain.calibrate.data.samples import Samples
from dq_toolchain.calibrate.multistep.growth import error_growth
from dq_toolchain.calibrate.multistep.problem import Problem
from dq_toolchain.calibrate.multistep.stages import Stage
from dq_toolchain.toolchain.recipe.sections import CalibrateSection
from dq_toolchain.toolchain.sampler.conditioning import Conditioning
from dq_toolchain.toolchain.sampler.probe import probe
from dq_toolchain.toolchain.sampler.rollout import Network, rollout
from dq_toolchain.toolchain.sampler.table import SamplerTable
from tests.calibrate.conftest import context_of

SLOPE = 0.3


def exact(x: Tensor, k: int) -> Tensor:
    return SLOPE * x


def quantized(x: Tensor, k: int) -> Tensor:
    return SLOPE * x + 0.01 * (k + 1) * torch.sign(x)


def table_of(calls: int, multistep: bool = False) -> SamplerTable:
    kind = DPMSolverMultistepScheduler if multistep else DDIMScheduler
    options = {} if multistep else {"clip_sample": False}
    return probe(kind(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", **options), calls)


def targets_of(table: SamplerTable, network: Network) -> Rollouts:
    outputs: list[Tensor] = []
    start = torch.randn(4, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    latents = rollout(table, network, start, on_step=lambda _k, _x, f: outputs.append(f))
    return Rollouts(latents, torch.stack(outputs))


def test_growth_of_a_linear_network_is_the_product_of_its_steps() -> None:
    table = table_of(8)
    found = error_growth(table, exact, quantized, targets_of(table, exact))
    for k in range(8):
        wanted = 1.0
        for later in range(k + 1, 8):
            wanted *= abs(table.a[later][0] + table.b[later][0] * SLOPE)
        assert float(found[k]) == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("multistep", [False, True])
def test_every_step_has_a_positive_growth_and_the_last_ones_is_one(multistep: bool) -> None:
    table = table_of(25, multistep)
    found = error_growth(table, exact, quantized, targets_of(table, exact))
    assert found.shape == (25,)
    assert found[-1] == pytest.approx(1.0)
    assert (found > 0).all()


def test_a_network_without_error_leaves_every_step_in() -> None:
    table = table_of(5)
    assert (error_growth(table, exact, exact, targets_of(table, exact)) > 0).all()


class Still(nn.Module):
    """Stands where a quantized network is wanted that nobody calls."""

    def set_step(self, k: int) -> None: ...


def problem_with(growth: list[float] | None) -> Problem:
    table, count = table_of(4), 6
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(5, count, 1, 3, 3, generator=generator)
    context = context_of(Still(), table, Samples(latents[0], Conditioning({}, {}), None))
    weights = None if growth is None else torch.tensor(growth)
    return Problem(
        context=context,
        targets=Rollouts(latents, latents[1:]),
        validation=2,
        settings=CalibrateSection(batch=2),
        growth=weights,
    )


def drawn(growth: list[float] | None, horizon: int) -> Counter[int]:
    stage = Stage(
        name="test",
        iterations=400,
        horizon=horizon,
        window=(0, 4),
        learned="rounding",
        inherited=False,
        gradient="adjoint",
    )
    problem = problem_with(growth)
    return Counter(problem.draw(Still(), stage, 0, i).first for i in range(400))  # type: ignore[arg-type]


def test_steps_are_drawn_in_proportion_to_growth() -> None:
    weighted, even = drawn([4.0, 2.0, 1.0, 1.0], 1), drawn(None, 1)
    assert [weighted[k] / 50 for k in range(4)] == pytest.approx([4, 2, 1, 1], rel=0.3)
    assert [even[k] / 100 for k in range(4)] == pytest.approx([1, 1, 1, 1], rel=0.3)


def test_a_segment_counts_the_growth_of_all_its_steps() -> None:
    draws = drawn([6.0, 0.0, 0.0, 3.0], 3)
    assert set(draws) == {0, 1}
    assert draws[0] / draws[1] == pytest.approx(2.0, rel=0.3)
