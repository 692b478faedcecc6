"""Every kind of operation, executed by the evaluator and by Apple's interpreter on the same random inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dq_toolchain.backends.coreai.asset import load
from dq_toolchain.backends.coreai.evaluator.program import CONSTANT, INVOKE, Function, functions
from dq_toolchain.backends.coreai.evaluator.registry import OPERATIONS
from dq_toolchain.backends.coreai.ir import Program
from dq_toolchain.backends.coreai.runtime.apple import Model
from tests.backends.coreai.evaluator import cases
from tests.backends.coreai.evaluator.programs import save_functions

pytest.importorskip("coreai_torch")
CASES = {**cases.moves(), **cases.sums(), **cases.elementwise(), **cases.quantized()}
NAMES = {name: f"case_{number}" for number, name in enumerate(CASES)}


@dataclass(frozen=True)
class Both:
    program: Program
    ours: Mapping[str, Function]
    apple: Model


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    """One program of all cases."""
    modules = {NAMES[name]: (case.module, case.inputs) for name, case in CASES.items()}
    asset = save_functions(modules, tmp_path_factory.mktemp("cases") / "model.aimodel")
    program = load(asset)
    return Both(program, functions(program), Model(asset))


@pytest.mark.parametrize("name", CASES)
def test_operation_equals_apples(name: str, both: Both) -> None:
    case = CASES[name]
    inputs: dict[str, Tensor] = {f"x{i}": x for i, x in enumerate(case.inputs)}
    ours, apples = both.ours[NAMES[name]](inputs)["output"], both.apple(NAMES[name], inputs)["output"]
    assert ours.shape == apples.shape
    if case.error == cases.EXACT:
        assert torch.equal(ours, apples)
    else:
        assert (ours - apples).norm() <= case.error * apples.norm()


def test_every_operation_is_in_a_case(both: Both) -> None:
    found = {op.name for graph in both.program.graphs.values() for op in graph.operations}
    assert found - {CONSTANT, INVOKE} == set(OPERATIONS)
