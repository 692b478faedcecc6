"""Whole small networks: the evaluator against Apple's interpreter, and against the integer simulation."""

from __future__ import annotations

import pytest

from dq_toolchain.backends.common.qdq.conformance import compare
from dq_toolchain.backends.coreai.asset import load
from dq_toolchain.backends.coreai.evaluator.program import functions
from dq_toolchain.backends.coreai.runtime.forced import forced as apple_forced
from dq_toolchain.backends.coreai.runtime.forced_evaluator import forced
from dq_toolchain.toolchain.metrics import relative_error
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork
from tests import tiny
from tests.backends.coreai.conftest import Converted, converted


@pytest.fixture(scope="module")
def cross_attention(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """Stable Diffusion's topology, W8A8, fp32, its integer attention included."""
    unet = tiny.tiny_condition_unet()
    return converted(tmp_path_factory.mktemp("cross"), {"precision": "fp32"}, unet=unet, step_groups=1, attention=True)


def _differences(made: Converted, group: int, seed: int) -> tuple[int, int, float]:
    """Of Apple's interpreter that goes on with the evaluator's integers: integers that differ, all of them, output error."""
    name, inputs = made.function_of(group), made.inputs(made.artifact.step_groups[group][0], seed)
    ours, output = forced(functions(load(made.asset))[name])(inputs, lambda _name, _shape: None)
    apples, out = apple_forced(made.asset, name)(inputs, lambda label, _shape: ours[label].float())
    assert apples.keys() == ours.keys()
    different = sum(int((apples[label] != ours[label]).sum()) for label in ours)
    assert all(int((apples[label].int() - ours[label].int()).abs().max()) <= 1 for label in ours)
    return different, sum(one.numel() for one in ours.values()), float(relative_error(output, out))


def test_fp32_equals_apples(exact: Converted) -> None:
    found = [_differences(exact, group, 0) for group in (0, 1)]
    assert sum(one[0] for one in found) <= 1e-5 * sum(one[1] for one in found) + 1
    assert max(one[2] for one in found) <= 2e-6


@pytest.mark.slow
def test_cross_attention_equals_apples(cross_attention: Converted) -> None:
    different, places, error = _differences(cross_attention, 0, 0)
    assert different <= 1e-5 * places + 1
    assert error <= 2e-6


def test_fp16_equals_apples_but_for_sums_in_fp16(half: Converted) -> None:
    """Apple's interpreter sums matrix products of fp16 in fp16."""
    different, places, error = _differences(half, 0, 0)
    assert 0 < different <= 0.02 * places
    assert error <= 2e-3


def _comparisons(made: Converted) -> list[tuple[int, int, int, float]]:
    simulated, ours, found = SimulatedNetwork(made.artifact), functions(load(made.asset)), []
    for group, steps in enumerate(made.artifact.step_groups):
        name = made.function_of(group)
        for seed in range(4):
            sites = made.audited.sites[name]
            one = compare(forced(ours[name]), sites, made.artifact, simulated, steps[0], made.inputs(steps[0], seed))
            found.append((one.different, one.places, one.largest, one.output_error))
    return found


def test_fp32_equals_the_simulation(exact: Converted) -> None:
    different, places, largest, error = zip(*_comparisons(exact), strict=True)
    assert sum(different) <= 1e-5 * sum(places) + 1
    assert max(largest) <= 1
    assert max(error) <= 2e-6


def test_fp16_differs_by_fp16_only(half: Converted) -> None:
    different, places, largest, error = zip(*_comparisons(half), strict=True)
    assert 0 < sum(different) <= 0.03 * sum(places)
    assert max(largest) <= 1
    assert max(error) <= 5e-3


def test_exchanged_step_groups_show(exact: Converted) -> None:
    """The comparison is sharp: the other group's function is off by many integers."""
    second = exact.function_of(1)
    function, sites = functions(load(exact.asset))[second], exact.audited.sites[second]
    simulated = SimulatedNetwork(exact.artifact)
    wrong = compare(forced(function), sites, exact.artifact, simulated, 0, exact.inputs(0))
    assert wrong.different > 100
