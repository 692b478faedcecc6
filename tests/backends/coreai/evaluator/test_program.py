"""What the evaluator refuses, how much it keeps, and how much a call computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dq_toolchain.backends.common.kernels import parts, products
from dq_toolchain.backends.coreai.asset import load
from dq_toolchain.backends.coreai.evaluator.macs import PER_SECOND, apples_seconds, counted, macs
from dq_toolchain.backends.coreai.evaluator.program import SMALL, functions
from dq_toolchain.toolchain.errors import BackendError
from tests.backends.coreai.evaluator.cases import Of, rand
from tests.backends.coreai.evaluator.programs import save_functions

pytest.importorskip("coreai_torch")


@pytest.fixture(scope="module")
def asset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    q, k, v = (rand(1, 2, 16, 8) for _ in range(3))
    x, wide = rand(1, 6, 9, 8), {"weight": rand(300, 300)}
    modules = {
        "conv": (Of(lambda x, w: F.conv2d(x, w, None, 2, 1, 1, 2), w=rand(4, 3, 3, 3)), [x]),
        "up": (Of(lambda x, w: F.conv_transpose2d(x, w, None, 2, 1, 1, 2), w=rand(6, 5, 3, 3)), [x]),
        "attention": (Of(F.scaled_dot_product_attention), [q, k, v]),
        "large": (Of(lambda x, w: F.linear(F.linear(x, w), w), **wide), [rand(2, 300)]),
        "refused": (Of(lambda x: F.max_pool2d(x, 3)), [x]),
    }
    return save_functions(modules, tmp_path_factory.mktemp("programs") / "model.aimodel")


def test_multiply_accumulates_are_those_of_a_hand_count(asset: Path) -> None:
    program = load(asset)
    found = {name: macs(program, program.functions[name]) for name in ("conv", "up", "attention", "large")}
    assert found["conv"] == 4 * 5 * 4 * (3 * 3 * 3)  # places and channels of the result, numbers that each sums
    assert found["up"] == 6 * 9 * 8 * (5 * 3 * 3)  # each input, to 5 channels of its group and 3x3 places
    assert found["attention"] == 2 * (2 * 16 * 16 * 8)
    work = counted(program, program.functions["attention"])
    assert work == {"product": found["attention"], "softmax": 2 * 16 * 16}
    assert apples_seconds(program, program.functions["conv"]) == found["conv"] / PER_SECOND["conv"]
    assert found["large"] == 2 * (2 * 300 * 300)


def test_unknown_operations_are_refused_by_name_before_any_executes(asset: Path) -> None:
    with pytest.raises(BackendError, match=r"'refused' holds operations that the evaluator does not know: max_pool_2d"):
        functions(load(asset))


def test_weights_are_not_kept(asset: Path) -> None:
    program = load(asset)
    function = functions(program, ["large"])["large"]
    for _ in range(2):
        function({"x0": rand(2, 300)})
    assert function.kept
    assert all(one.numel() <= SMALL for one in function.kept.values())


def test_products_in_parts_are_the_same(asset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attention = functions(load(asset), ["attention"])["attention"]
    inputs = {f"x{i}": rand(1, 2, 16, 8) for i in range(3)}
    whole = attention(inputs)["y0"]
    monkeypatch.setattr(parts, "BLOCK", 3 * 2 * 16)  # three rows, and one at the end
    lengths: list[int] = []

    def softmax(x: Tensor, axis: int) -> Tensor:
        lengths.append(x.shape[2])
        return x.double().softmax(axis)

    monkeypatch.setattr(products, "softmax", softmax)
    assert torch.equal(attention(inputs)["y0"], whole)
    assert lengths == [3, 3, 3, 3, 3, 1]
