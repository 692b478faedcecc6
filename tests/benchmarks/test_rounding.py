"""Ways of rounding side by side: same held-out seeds, a row each, and the stages that each recipe asks for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.rounding import main, parser
from torch import Tensor

from benchmarks import common
from tests.tiny import write_tiny_model

RECIPE = """
[quantize]
step_groups = 2
[calibrate]
samples = 8
batch = 4
warmup = 3
[blocks]
rows = 8
"""


class Pixels:
    """Features of pictures without a classifier."""

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :3]

    def labels(self, images: Tensor) -> Tensor:
        return images.flatten(1).argmax(1)


def test_a_row_for_each_way_of_rounding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "extractor_for", lambda *_: Pixels())
    model = write_tiny_model(tmp_path / "model")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    wanted = ("--model", model, "--recipe", tmp_path / "recipe.toml", "--steps", 4, "--held-out", 6)
    kept = ("--json", tmp_path / "rows.json", "--work", tmp_path / "work", "--rounding", "nearest,closed-form")
    rows = main(parser().parse_args([str(each) for each in (*wanted, *kept)]))
    assert [row["rounding"] for row in rows] == ["nearest", "closed-form"]
    assert [[stage["stage"] for stage in row["stages"]] for row in rows] == [
        ["single-step warm-up"],
        ["closed-form rounding", "single-step warm-up"],
    ]
    assert rows[0]["psnr"] != rows[1]["psnr"]
    assert all(row["psnr_lowest"] <= row["psnr_p10"] <= row["psnr"] for row in rows)
    assert json.loads((tmp_path / "rows.json").read_text()) == rows
