"""Every kind of operation, executed by the evaluator and by Apple's interpreter on the same random inputs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dq_toolchain.backends.coreai.asset import load
from dq_toolchain.backends.coreai.evaluator.program import CONSTANT, INVOKE, functions
from dq_toolchain.backends.coreai.evaluator.registry import OPERATIONS
from dq_toolchain.backends.coreai.ir import Program
from dq_toolchain.backends.coreai.runtime.apple import Model
from tests.backends.coreai.evaluator import cases
from tests.backends.coreai.evaluator.programs import save_functions

pytest.importorskip("coreai_torch")
GROUPS = {
    "moves": cases.moves(),
    "sums": cases.sums(),
    "elementwise": cases.elementwise(),
    "quantized": cases.quantized(),
}
CASES = [(group, name) for group, found in GROUPS.items() for name in found]


class All(nn.Module):
    """The cases of a group one after the other: converting each of them for itself takes longer."""

    def __init__(self, found: Mapping[str, cases.Case]) -> None:
        super().__init__()
        self.each, self.counts = (
            nn.ModuleList(c.module for c in found.values()),
            [len(c.inputs) for c in found.values()],
        )

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        rest = iter(inputs)
        return tuple(
            module(*itertools.islice(rest, count)) for module, count in zip(self.each, self.counts, strict=True)
        )


Results = Mapping[tuple[str, str], tuple[Tensor, Tensor]]
"""What the evaluator and Apple's interpreter give, by group and case."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Program]:
    modules = {group: (All(found), _inputs(found)) for group, found in GROUPS.items()}
    asset = save_functions(modules, tmp_path_factory.mktemp("cases") / "model.aimodel")
    return asset, load(asset)


def _inputs(found: Mapping[str, cases.Case]) -> list[Tensor]:
    return [x for case in found.values() for x in case.inputs]


@pytest.fixture(scope="module")
def both(program: tuple[Path, Program]) -> Results:
    ours, apple, out = functions(program[1]), Model(program[0]), {}
    for group, found in GROUPS.items():
        inputs = {f"x{i}": x for i, x in enumerate(_inputs(found))}
        results = ours[group](inputs), apple(group, inputs)
        for i, name in enumerate(found):
            out[group, name] = (results[0][f"y{i}"], results[1][f"y{i}"])
    return out


@pytest.mark.parametrize(("group", "name"), CASES)
def test_operation_equals_apples(group: str, name: str, both: Results) -> None:
    ours, apples = both[group, name]
    error = GROUPS[group][name].error
    assert ours.shape == apples.shape
    if error == cases.EXACT:
        assert torch.equal(ours, apples)
    else:
        assert (ours - apples).norm() <= error * apples.norm()


def test_every_operation_is_in_a_case(program: tuple[Path, Program]) -> None:
    found = {op.name for graph in program[1].graphs.values() for op in graph.operations}
    assert found - {CONSTANT, INVOKE} == set(OPERATIONS)
