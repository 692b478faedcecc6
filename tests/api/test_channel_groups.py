"""Convolutions with channel groups, depthwise ones included, in the integers of each target that has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dq_toolchain as dq
from tests import tiny
from tests.api.conftest import FAST, SEEDS

WIDTH = 16


class Grouped(nn.Module):
    """Pictures of one channel, (B, 1, H, W), through a depthwise convolution and one of four groups."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Conv2d(1, WIDTH, 3, padding=1)
        self.time = nn.Linear(2, WIDTH)
        self.depth = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)
        self.four = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=4)
        self.out = nn.Conv2d(WIDTH, 1, 3, padding=1)

    def forward(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor]:
        angle = timestep[:, None] / 1000 * 3.1416
        told = self.time(torch.cat([angle.sin(), angle.cos()], dim=1))
        x = F.silu(self.into(sample))
        x = F.silu(self.depth(x) + told[:, :, None, None])
        return (self.out(F.silu(self.four(x) + x)),)


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> dq.Calibration:
    torch.manual_seed(0)
    return dq.calibrate(
        Grouped(), out=tmp_path_factory.mktemp("grouped"), scheduler=tiny.scheduler(), sample_shape=(1, 8, 8),
        recipe=SEEDS, **FAST,
    )  # fmt: skip


FORMS: dict[str, dict[str, Any]] = {
    "executorch": {"step_groups_as": "methods"},
    "coreml": {"precision": "fp32"},
    "coreai": {"precision": "fp32"},
}


@pytest.mark.parametrize("target", FORMS)
def test_they_are_integers_and_the_verdict_passes(target: str, grouped: dq.Calibration, tmp_path: Path) -> None:
    bundle = dq.export(grouped, target, out=tmp_path / target, **FORMS[target])
    made = bundle.description
    integers = sum(row.count for row in made.operations if " x int" in row.arithmetic)
    assert integers == 5 * len(made.methods)
    verdict = dq.validate(dq.run(bundle))
    assert verdict.outcome == "pass", [check.detail for check in verdict.checks if not check.passed]


def test_ranges_as_an_input_are_refused_in_executorchs_own_words(grouped: dq.Calibration, tmp_path: Path) -> None:
    text = r'depth has 16 channel groups; ExecuTorch says "XNNPACK only supports.*--step-groups-as methods, or calibrate with'
    with pytest.raises(dq.errors.BackendError, match=text):
        dq.export(grouped, "executorch", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
