"""A damaged device is caught: its report is judged bad, the first bad step is named, and conformance is at fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import save_file
from torch import Tensor, nn

from dq_toolchain.toolchain.disk.files import sha256
from dq_toolchain.toolchain.simulation.network import SimulatedLayer, SimulatedNetwork
from dq_toolchain.toolchain.verdict.judge import validate
from tests.toolchain.devices import Case, Run, case, run, skipping, swapped_groups, write_bundle, write_run, wrong_scale

STEP = 3


def _overflow(network: SimulatedNetwork) -> None:
    """fp16 between the layers, with values that it does not hold from one step on."""

    def hook(_layer: nn.Module, _inputs: object, out: Tensor) -> Tensor:
        late = network.switch.current >= 2
        return (out * (1e6 if late else 1.0)).half().float()

    layers = [module for module in network.modules() if isinstance(module, SimulatedLayer)]
    layers[3].register_forward_hook(hook)


DAMAGE: dict[str, tuple[Callable[[Case], Run], int]] = {
    "one layer's scale twice as large": (lambda c: run(wrong_scale(c.artifact, 5, 2.0), c.reference), 0),
    "two step groups exchanged": (lambda c: run(swapped_groups(c.artifact, 0, 3), c.reference), 0),
    "one step skipped": (lambda c: run(c.artifact, c.reference, table=skipping(c.artifact.table, STEP)), STEP),
    "fp16 overflow": (lambda c: run(c.artifact, c.reference, change=_overflow), 4),
}
"""What is wrong, and the step at which it begins."""


@pytest.fixture(scope="module")
def made() -> Case:
    return case()


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_judged_and_named(name: str, made: Case, tmp_path: Path) -> None:
    device, begins = DAMAGE[name]
    bundle = write_bundle(tmp_path, made)
    write_run(bundle, made, device(made))
    verdict = validate(bundle / "report")
    assert not verdict.passed
    assert not verdict.conformance_passed
    assert verdict.first_step == verdict.first_step_of(verdict.conformance)
    assert verdict.first_step == begins
    assert all(check.passed for check in verdict.claims)


def test_without_the_second_half_conformance_is_not_passed(made: Case, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path, made)
    latents, outputs = run(made.artifact, made.reference)
    path = write_run(bundle, made, (latents, outputs))
    tensors = path.parent / "report.safetensors"
    save_file({"latents": latents}, tensors)
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | {"files": {"report.safetensors": sha256(tensors)}}))
    verdict = validate(path)
    assert verdict.fidelity_passed
    assert [check.name for check in verdict.conformance] == ["conformance.measured"]
    assert not verdict.passed
    assert "--teacher-forced on" in verdict.conformance[0].detail
    assert verdict.steps[0].ratio is None
