"""What the compiler quantizes wrongly has a multiplication in front of it, and nothing else has."""

from __future__ import annotations

import pytest
import torch

from dq_toolchain.backends.common.onnx.reading import producer
from dq_toolchain.backends.qnn.graph.clips import clips, has_wrong_rows, ones_for
from tests.backends.qnn.conftest import Lowered, load_graph


def _ends(low: list[float], high: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(low), torch.tensor(high)


def test_a_narrower_range_clips_in_any_step_group() -> None:
    wide = _ends([-2.0, -2.0], [2.0, 2.0])
    assert not clips(wide, wide)
    assert not clips(_ends([-1.0, -2.0], [1.0, 2.0]), wide)
    assert clips(wide, _ends([-2.0, -2.0], [2.0, 1.9]))
    assert clips(wide, _ends([-1.9, -3.0], [2.0, 3.0]))


@pytest.mark.parametrize(
    ("shape", "bits", "wrong"),
    [
        ([16, 32], 16, True), ([1, 16, 32], 16, True), ([64, 320], 16, True), ([1, 256, 320], 16, True),
        ([16, 32], 8, False), ([17, 32], 16, False), ([63, 320], 16, False), ([1, 8, 16, 16], 16, False),
    ],
)  # fmt: skip
def test_rows_that_the_compiler_gets_wrong(shape: list[int], bits: int, wrong: bool) -> None:
    assert has_wrong_rows(shape, bits) == wrong


@pytest.mark.parametrize("shape", [[1, 8, 4, 4], [1, 1, 4, 5], [7, 3], [2, 5, 1]])
def test_ones_are_never_one_number(shape: list[int]) -> None:
    ones = ones_for(shape)
    assert ones.numel() > 1
    assert (ones * torch.zeros(shape)).shape == tuple(shape)


def test_only_quantizers_that_need_it_have_it(form: Lowered) -> None:
    graph = load_graph(form.graphs[0])
    apart = [node for node in graph if str(node.name).endswith(".apart")]
    assert apart
    for node in apart:
        assert all(user.op_type == "QuantizeLinear" for user, _ in node.outputs[0].uses())
        assert (node.inputs[1].const_value.numpy() == 1).all()
    quantizers = [node for node in graph if node.op_type == "QuantizeLinear"]
    assert len(apart) < len(quantizers) / 2
    behind = [node for node in quantizers if producer(node.inputs[0], "DequantizeLinear") is not None]
    assert all(node.inputs[0].producer().name.endswith(":output.dequantize") for node in behind)
