"""Biases of the graphs for the NPU give back, in the mean, what it drops of 16-bit sums."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dq_toolchain.backends.qnn.graph.biases import (
    DROPPED,
    GUARD,
    NPU,
    bias_integers,
    graph_to_compile,
    method_of,
    npu_biases,
)
from dq_toolchain.backends.qnn.graph.numbers import numbers_of
from dq_toolchain.backends.qnn.graph.weights import weight_forms
from dq_toolchain.backends.qnn.htp.arithmetic import Sums
from dq_toolchain.toolchain.formats.artifact import Artifact
from tests.backends.qnn.conftest import Lowered, artifact_of, load_graph, made

NAMES = ("a16", "a16-w4")


def layers(artifact: Artifact, group: int) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Calibrated bias, bias for the NPU, and unit of every layer that has a bias, (out,) float64."""
    found, numbers, forms = npu_biases(artifact, group), numbers_of(artifact), weight_forms(artifact)
    rows = []
    for layer, bias in found.items():
        unit = numbers[f"{layer}:input"].scale[group].double() * forms[layer].scale(artifact.layers[layer]).double()
        rows.append((artifact.float_parameters[f"{layer}.bias"].double(), bias.double(), unit))
    assert len(rows) > 10
    return rows


@pytest.mark.parametrize("name", NAMES)
def test_sums_with_dropped_bits_have_the_right_mean(name: str) -> None:
    """With the calibrated bias they are half of what is dropped too small."""
    artifact, _ = artifact_of(name)
    sums = torch.randint(-(10**7), 10**7, (4000, 1), generator=torch.Generator().manual_seed(0)).double()
    away: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    for calibrated, bias, unit in layers(artifact, 0):
        wanted = sums + bias_integers(calibrated, unit)
        for npu in away:
            held = bias_integers(bias if npu else calibrated, unit)
            computed = Sums(sums.expand(-1, len(unit)), held, torch.ones(()), wide=True).as_computed
            away[npu].append((computed - wanted).mean(0))
    with_npu, with_calibrated = torch.cat(away[True]), torch.cat(away[False])
    assert with_npu.abs().max() <= DROPPED / 2 + 2, "no channel is farther than half a multiple"
    assert abs(with_npu.mean()) < 12
    assert -DROPPED < with_calibrated.mean() < -DROPPED / 4


@pytest.mark.parametrize("name", NAMES)
def test_no_rounding_of_the_compilers_takes_another_multiple(name: str) -> None:
    artifact, _ = artifact_of(name)
    for group in range(len(artifact.step_groups)):
        for _, bias, unit in layers(artifact, group):
            integers = bias / unit
            kept = torch.trunc(integers / DROPPED)
            for error in (-GUARD / 2, GUARD / 2):
                moved = torch.trunc((integers + error) / DROPPED)
                assert torch.equal(moved, kept)
            assert ((integers - kept * DROPPED).abs() <= GUARD + 1).all()


def test_step_groups_have_biases_of_their_own() -> None:
    artifact, _ = artifact_of("a16")
    one, two = (npu_biases(artifact, group) for group in (0, 1))
    assert not torch.equal(artifact.scale[0], artifact.scale[1])
    assert any(not torch.equal(one[layer], two[layer]) for layer in one)


def test_only_biases_differ_between_the_two_graphs(wide: Lowered) -> None:
    for path in wide.graphs:
        npu = path.with_name(f"{path.stem}{NPU}")
        plain, other = (load_graph(each) for each in (path, npu))
        assert [node.op_type for node in plain] == [node.op_type for node in other]
        biases = [(a.name, a.inputs[2].name, b.inputs[2].name) for a, b in zip(plain, other, strict=True)
                  if a.op_type in ("Conv", "Gemm") and len(a.inputs) > 2]  # fmt: skip
        assert {b for _, _, b in biases} == {f"{layer}.npu_bias" for layer, _, _ in biases}
        numbers = [{name: value.const_value.numpy().tobytes() for name, value in graph.initializers.items()
                    if name not in {each for _, *both in biases for each in both}} for graph in (plain, other)]  # fmt: skip
        assert numbers[0] == numbers[1]


def test_eight_bits_need_no_graph_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    form = made("a8", tmp_path_factory)
    model = form.folder / "model"
    assert not list(model.glob(f"*{NPU}"))
    assert graph_to_compile(model, "steps_g0") == form.graphs[0]


def test_names(wide: Lowered) -> None:
    found = graph_to_compile(wide.folder / "model", "steps_g1")
    assert found.name == "steps_g1.npu.onnx"
    assert method_of(found) == method_of(Path("steps_g1.onnx")) == "steps_g1"
