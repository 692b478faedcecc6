"""Noise in FP32's outputs: more of it moves samples further, none moves nothing, and the network is left as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from benchmarks.common import Judge
from benchmarks.sensitivity import main, noisy, parser

from benchmarks import common
from dq_toolchain.calibrate.prepare.setup import setup
from tests.benchmarks.test_rounding import Pixels
from tests.calibrate.conftest import tiny_recipe
from tests.tiny import write_tiny_model


@pytest.fixture(autouse=True)
def _no_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "extractor_for", lambda *_: Pixels())


def test_more_noise_moves_samples_further(tmp_path: Path) -> None:
    wanted = ("--model", write_tiny_model(tmp_path / "model"), "--steps", 4, "--held-out", 5, "--draws", 3)
    kept = ("--noise", "0.001,0.01,0.1", "--json", tmp_path / "rows.json")
    rows = main(parser().parse_args([str(each) for each in (*wanted, *kept)]))
    assert [row["noise"] for row in rows] == [0.001, 0.01, 0.1]
    assert min(rows[0]["psnr"]) > max(rows[1]["psnr"])
    assert min(rows[1]["psnr"]) > max(rows[2]["psnr"])
    for row in rows:
        assert sum(count for _, count in row["lowest_seeds"]) == 3
        assert all(low <= p10 for low, p10 in zip(row["psnr_lowest"], row["psnr_p10"], strict=True))
    assert json.loads((tmp_path / "rows.json").read_text())[0]["psnr"] == rows[0]["psnr"]


def test_without_noise_samples_are_fp32s_and_draws_repeat(tmp_path: Path) -> None:
    judge = Judge(setup(tiny_recipe(write_tiny_model(tmp_path / "model"), tmp_path)), 4)
    assert noisy(judge, 0.0, torch.Generator()).min() >= 100
    one, other = (noisy(judge, 0.05, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, other)
    assert one.max() < 60
    assert not judge.context.network._forward_hooks
