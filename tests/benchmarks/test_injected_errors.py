"""Errors of single steps in the finished sample: their closed form in a linear network, and how they add up."""

from __future__ import annotations

import pytest
import torch
from benchmarks.injected_errors import Accumulation, injected_errors, steps_of
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor

from dq_toolchain.calibrate.data.rollouts import Rollouts
from dq_toolchain.toolchain.sampler.probe import probe
from dq_toolchain.toolchain.sampler.rollout import rollout
from dq_toolchain.toolchain.sampler.table import SamplerTable

CALLS, SEEDS, SHAPE = 6, 16, (1, 8, 8)
SLOPE = 0.3


def table_of(a: float, b: float, c: float = 0.0) -> SamplerTable:
    rows = CALLS * ((a,),), CALLS * ((b,),)
    return SamplerTable("any", "epsilon", tuple(map(float, range(CALLS))), *rows, CALLS * (c,), CALLS * (1.0,), 1.0)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear(x: Tensor, k: int) -> Tensor:
    return SLOPE * x


def accumulated(table: SamplerTable, errors: Tensor, noise: Tensor | None = None) -> Accumulation:
    """Of the linear network whose output is off by ``errors`` (N, S, ...), at any latent."""

    def quantized(x: Tensor, k: int) -> Tensor:
        return SLOPE * x + errors[k]

    outputs: list[Tensor] = []
    start = random(SEEDS, *SHAPE, seed=1)
    latents = rollout(table, linear, start, noise=noise, on_step=lambda _k, _x, f: outputs.append(f))
    told: list[int] = []
    injected = injected_errors(
        table, lambda _n: linear, quantized, Rollouts(latents, torch.stack(outputs)), noise=noise, advance=told.append
    )
    assert sum(told) == steps_of(table.calls)
    return Accumulation.of(rollout(table, quantized, start, noise=noise)[-1] - latents[-1], injected)


@pytest.mark.parametrize("c", [0.0, 0.7])
def test_a_linear_network_carries_errors_as_its_powers_say(c: float) -> None:
    table, errors = table_of(1.1, 0.5, c), random(CALLS, SEEDS, *SHAPE)
    noise = random(CALLS, SEEDS, *SHAPE, seed=2) if c else None
    found = accumulated(table, errors, noise)
    for k in range(CALLS):
        expected = 0.5 * (1.1 + 0.5 * SLOPE) ** (CALLS - 1 - k) * errors[k]
        torch.testing.assert_close(found.injected[k], expected.flatten(1))
    torch.testing.assert_close(found.final, found.injected.sum(0))  # nothing but the sum in a linear network


def test_samplers_that_look_back_are_carried_with_their_history() -> None:
    table = probe(DPMSolverMultistepScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction"), CALLS)
    assert len(table.a[0]) + len(table.b[0]) > 2
    found = accumulated(table, random(table.calls, SEEDS, *SHAPE))
    torch.testing.assert_close(found.final, found.injected.sum(0))


def test_equal_errors_give_the_number_of_steps_and_independent_ones_give_one() -> None:
    table = table_of(1.0, 1.0 / (1 + SLOPE))  # rescaled below, so that all errors are carried alike
    carried = torch.tensor([(1.0 + SLOPE / (1 + SLOPE)) ** (CALLS - 1 - k) for k in range(CALLS)], dtype=torch.float64)
    scale = (1 / carried).view(-1, 1, 1, 1, 1)
    equal = accumulated(table, scale * random(1, SEEDS, *SHAPE).expand(CALLS, -1, -1, -1, -1))
    independent = accumulated(table, scale * random(CALLS, SEEDS, *SHAPE))
    torch.testing.assert_close(equal.closed / equal.incoherent, torch.full((SEEDS,), CALLS, dtype=torch.float64))
    torch.testing.assert_close(equal.correlation(), torch.ones(CALLS, CALLS, dtype=torch.float64))
    assert equal.figures()["open_ratio"]["median"] == pytest.approx(CALLS)
    ratio = independent.figures()["closed_ratio"]
    assert ratio["p10"] < 1 < ratio["p90"]
    assert abs(ratio["median"] - 1) < 0.2
    assert float((independent.correlation() - torch.eye(CALLS)).abs().max()) < 0.2


CASES = {
    "the same for all seeds and steps": ((1, 1), (1.0, 0.0, 0.0)),
    "each step its own, the same for all seeds": ((CALLS, 1), (1.0, 0.0, 0.0)),
    "each seed its own, the same at all steps": ((1, SEEDS), (0.0, 1 - 1 / CALLS, 1 / CALLS)),
    "all of their own": ((CALLS, SEEDS), (0.0, 0.0, 1.0)),
}


@pytest.mark.parametrize(("drawn", "shares"), CASES.values(), ids=CASES)
def test_the_power_is_split_by_what_errors_have_in_common(
    drawn: tuple[int, int], shares: tuple[float, float, float]
) -> None:
    errors = random(*drawn, 4096).expand(CALLS, SEEDS, -1)
    found = Accumulation.of(errors.sum(0), errors)
    split = found.split(found.final)
    assert split.bias + split.alike + split.rest == pytest.approx(split.power)
    assert split.power == pytest.approx(float(found.closed.mean()))
    assert split.shares() == pytest.approx(shares, abs=0.05)


def test_a_sample_that_went_astray_does_not_decide_what_is_scaled() -> None:
    factor = torch.ones(SEEDS, 1, dtype=torch.float64).index_fill(0, torch.tensor([3]), 1000.0)
    errors = factor * random(1, SEEDS, 4096).expand(CALLS, -1, -1)
    errors = torch.cat([errors, torch.zeros(CALLS, 1, 4096, dtype=torch.float64)], dim=1)  # and one sample without any
    scaled = Accumulation.of(errors.sum(0), errors).scaled()
    torch.testing.assert_close(scaled.incoherent, torch.ones(SEEDS, dtype=torch.float64))
    torch.testing.assert_close(scaled.closed, torch.full((SEEDS,), CALLS, dtype=torch.float64))
    assert scaled.split(scaled.final).shares() == pytest.approx((0.0, 1 - 1 / CALLS, 1 / CALLS), abs=0.05)


def test_a_bias_is_no_correlation_within_a_seed() -> None:
    errors = random(1, 1, 4096) + random(CALLS, SEEDS, 4096, seed=1)
    found = Accumulation.of(errors.sum(0), errors)
    off = ~torch.eye(CALLS, dtype=torch.bool)
    assert float(found.correlation()[off].mean()) == pytest.approx(0.5, abs=0.05)
    assert float(found.correlation(without_bias=True)[off].mean()) == pytest.approx(0.0, abs=0.05)


def test_no_error_at_all_has_no_ratio() -> None:
    nothing = torch.zeros(CALLS, SEEDS, 4)
    found = Accumulation.of(nothing[0], nothing).figures()
    assert found["closed_ratio"] is None
    assert found["closed_split_scaled"] is None
    assert found["closed_split"]["power"] == 0.0
    with pytest.raises(ValueError, match="at least 2 are needed"):
        Accumulation.of(nothing[0, :1], nothing[:, :1])
