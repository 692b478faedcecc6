"""A transformer whose modulation does not bear 4 bits: the sensitivities name it, and a budget leaves it at 8."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dq_toolchain.calibrate.bits import budget as module
from dq_toolchain.calibrate.run import calibrate
from dq_toolchain.toolchain.cli.entry import run_command
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.recipe.loading import load_recipe
from tests.tiny_pipelines import flux, save_transformer

PLANTED = "transformer_blocks.0.norm1.linear"


def _recipe(folder: Path, **quantize: object) -> dict[str, dict[str, object]]:
    return {
        "model": {"path": folder / "model"},
        "run": {"out": folder / "out", "device": "cpu"},
        "sampler": {"steps": 3, "guidance": 1.0},
        "conditioning": {"file": folder / "model" / "conditioning.safetensors"},
        "quantize": {"step_groups": 1, **quantize},
        "calibrate": {"method": "mse", "samples": 4},
        "reference": {"seeds": 2},
    }


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One large weight in each row of a modulation: its grid at 4 bits has little room for the others."""
    monkeypatch.setattr(module, "PROBES", 8)
    torch.manual_seed(0)
    network = flux(num_layers=2)
    with torch.no_grad():
        weight = network.get_parameter(f"{PLANTED}.weight")
        weight.mul_(4)
        weight[:, 0] = 8.0
    save_transformer(network, tmp_path / "model")
    return tmp_path


def test_a_modulation_that_does_not_bear_4_bits_is_named_first_and_kept_at_8(
    planted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, artifact, _ = calibrate(load_recipe(None, _recipe(planted, budget="size=0.2")), Reporter(quiet=True))
    widths = {site.layer: site.weight_bits for site in artifact.sites}
    assert widths[PLANTED] == 8
    assert 4 in widths.values()
    out = str(planted / "out" / "calibration")
    assert run_command(["inspect", out, "--sensitivity", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["layer"] == PLANTED
    assert rows[0]["bits"] == 8
    assert rows[0]["share"] > 5 * rows[1]["share"]
    assert sum(row["share"] for row in rows) == pytest.approx(1.0)
    assert all(row["errors"]["4"] > row["errors"]["8"] for row in rows[:3])
    assert run_command(["inspect", out, "--sensitivity"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "transformer_blocks" in line]
    assert PLANTED in lines[0]


def test_without_a_budget_there_is_nothing_to_show(planted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calibrate(load_recipe(None, _recipe(planted)), Reporter(quiet=True))
    assert run_command(["inspect", str(planted / "out" / "calibration"), "--sensitivity"]) == 2
    assert "was calibrated without --budget" in capsys.readouterr().err
    assert run_command(["inspect", str(planted), "--sensitivity"]) == 2
    assert "holds no calibration.json" in capsys.readouterr().err
