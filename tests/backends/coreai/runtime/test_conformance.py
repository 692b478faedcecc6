"""Operation by operation, fed the simulation's own integers, Apple's interpreter computes what the simulation does."""

from __future__ import annotations

from pathlib import Path

import pytest

from dq_toolchain.backends.common.qdq.conformance import Comparison, compare
from dq_toolchain.backends.coreai.runtime.forced import forced
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork
from tests.backends.coreai.conftest import Converted, converted
from tests.backends.teacher_forced import check_fp16, check_fp32, comparisons
from tests.toolchain.quant.test_step_vectors import CASES


def compared(made: Converted) -> list[Comparison]:
    return comparisons(made.artifact, made.plan, made.audited.sites, lambda name: forced(made.asset, name))


def test_fp32_asset_equals_the_simulation(exact: Converted) -> None:
    check_fp32(compared(exact))


def test_fp16_asset_differs_by_fp16_only(half: Converted) -> None:
    check_fp16(compared(half))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_rows_with_a_vector_per_block_and_the_timestep(precision: str, tmp_path: Path) -> None:
    """Many vectors, and behind them the timestep, by which the network divides."""
    made = converted(
        tmp_path,
        {"precision": precision},
        unet=CASES["divided by time"].build().requires_grad_(False),
        step_vectors=True,
    )
    (check_fp32 if precision == "fp32" else check_fp16)(compared(made))


def test_exchanged_step_groups_show(exact: Converted) -> None:
    """The comparison is sharp: the other group's function is off by many integers."""
    second = exact.function_of(1)
    wrong = compare(
        forced(exact.asset, second),
        exact.audited.sites[second],
        exact.artifact,
        SimulatedNetwork(exact.artifact),
        0,
        exact.inputs(0),
    )
    assert wrong.different > 100
    assert wrong.output_error > 1e-3


def test_every_site_is_compared(exact: Converted, half: Converted) -> None:
    for made in (exact, half):
        for sites in made.audited.sites.values():
            assert sorted(sites.values()) == list(range(len(made.artifact.sites)))
