"""Operation by operation, fed the simulation's own integers, Apple's interpreter computes what the simulation does."""

from __future__ import annotations

from dq_toolchain.backends.common.qdq.conformance import Comparison, compare
from dq_toolchain.backends.coreai.runtime.forced import forced
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork
from tests.backends.coreai.conftest import Converted


def comparisons(made: Converted, seeds: int = 4) -> list[Comparison]:
    simulated = SimulatedNetwork(made.artifact)
    found = []
    for group, steps in enumerate(made.artifact.step_groups):
        name, k = made.function_of(group), steps[0]
        execute = forced(made.asset, name)
        for seed in range(seeds):
            sites = made.audited.sites[name]
            found.append(compare(execute, sites, made.artifact, simulated, k, made.inputs(k, seed)))
    return found


def test_fp32_asset_equals_the_simulation(exact: Converted) -> None:
    found = comparisons(exact)
    assert all(one.output_error <= 2e-6 for one in found)
    assert all(one.largest <= 1 for one in found)
    assert sum(one.different for one in found) <= 1e-5 * sum(one.places for one in found) + 1


def test_fp16_asset_differs_by_fp16_only(half: Converted) -> None:
    found = comparisons(half)
    assert all(one.output_error <= 5e-3 for one in found)
    assert all(one.largest <= 1 for one in found)
    assert 0 < sum(one.different for one in found) < 0.03 * sum(one.places for one in found)


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
