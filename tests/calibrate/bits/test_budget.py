"""Bits by budget, from the recipe to the artifact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from dq_toolchain.calibrate import pipeline
from dq_toolchain.calibrate.bits import budget as module
from dq_toolchain.calibrate.bits.sensitivity import final_errors
from dq_toolchain.calibrate.run import calibrate
from dq_toolchain.toolchain.cli import app
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.errors import CalibrationError, RecipeError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.quant.site import KEPT
from dq_toolchain.toolchain.recipe.sections import Recipe
from dq_toolchain.toolchain.render.summary import calibration_summary
from tests.calibrate.conftest import tiny_recipe

QUIET = Reporter(quiet=True)


@pytest.fixture(autouse=True, scope="module")
def _few_probes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PROBES", 8)
        yield


Made = tuple[Path, Artifact, Reference]


@pytest.fixture(scope="module")
def made(_few_probes: None, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Between all 4 bits (0.125) and all 8 (0.25)."""
    return calibrate(_recipe(tiny_model, tmp_path_factory.mktemp("budget"), budget="size=0.18"), QUIET)


def _recipe(model: Path, out: Path, **quantize: object) -> Recipe:
    quantize = {"step_groups": 2, **quantize}
    return tiny_recipe(
        model, out, quantize=quantize, calibrate={"method": "mse", "samples": 8}, reference={"seeds": 16}
    )


def _widths(artifact: Artifact) -> dict[str, int]:
    return {site.layer: site.weight_bits for site in artifact.sites if site.weight_bits is not None}


def _size(artifact: Artifact) -> float:
    widths = _widths(artifact)
    counts = {name: layer.weight_q.numel() for name, layer in artifact.layers.items()}
    floats = sum(artifact.float_parameters[f"{name}.weight"].numel() for name in artifact.float_layers)
    bits = sum(counts[name] * widths[name] for name in counts) + 32 * floats
    return bits / (32 * (sum(counts.values()) + floats))


def test_size_is_kept_to_and_used(made: Made) -> None:
    """What is left over is less than the largest layer takes."""
    folder, artifact, reference = made
    spent = artifact.record["budget"]
    largest = max(layer.weight_q.numel() for layer in artifact.layers.values())
    total = sum(layer.weight_q.numel() for layer in artifact.layers.values())
    assert spent["size"] == pytest.approx(_size(artifact))
    assert 0.18 - 4 * largest / (32 * total) < _size(artifact) <= 0.18
    assert set(_widths(artifact).values()) == {4, 8}
    summary = calibration_summary(folder, artifact, reference)["budget"]
    assert summary["met"]
    assert summary["layers"] == {
        str(bits): count for bits, count in sorted(Counter(_widths(artifact).values()).items())
    }


def test_sensitive_layers_get_the_bits(
    made: Made, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The choice is better than its opposite: the same sensitivities, upside down."""

    def pooled(calibrated: Made) -> float:
        _, artifact, reference = calibrated
        assert artifact.record["budget"]["size"] > 0.16
        return float((reference.simulation_latents[-1] - reference.fp32_latents[-1]).square().mean())

    usual = final_errors

    def upside_down(*given: object) -> dict[str, dict[int, float]]:
        errors = usual(*given)  # type: ignore[arg-type]
        return {name: {bits: (1 / widths[4]) * (8 - bits) for bits in widths} for name, widths in errors.items()}

    monkeypatch.setattr(module, "final_errors", upside_down)
    opposite = calibrate(_recipe(tiny_model, tmp_path, budget="size=0.18"), QUIET)
    assert pooled(made) < 0.5 * pooled(opposite)


@pytest.mark.slow
def test_psnr_takes_the_smallest_choice_that_reaches_it(tiny_model: Path, tmp_path: Path) -> None:
    sizes = []
    for wanted in (25, 35):
        _, artifact, _ = calibrate(_recipe(tiny_model, tmp_path / str(wanted), budget=f"psnr>={wanted}"), QUIET)
        assert artifact.record["budget"]["psnr_before_fit"] >= wanted
        sizes.append(_size(artifact))
    assert sizes[0] < sizes[1] <= 0.25


def test_layers_in_float_stay_so_and_count(tiny_model: Path, tmp_path: Path) -> None:
    folder, artifact, _ = calibrate(
        _recipe(tiny_model, tmp_path, budget="size=0.25", keep_float=["time_embedding"]), QUIET
    )
    loaded = Artifact.load(folder)
    assert loaded.float_layers
    assert all(name.startswith("time_embedding.") for name in loaded.float_layers)
    assert {op.layer for op in loaded.float_operations if op.reason == KEPT} == set(loaded.float_layers)
    assert not set(loaded.float_layers) & set(loaded.layers)
    assert artifact.record["budget"]["size"] == pytest.approx(_size(loaded))


def test_what_cannot_be_is_said(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"the smallest choice of 4 or 8 bits takes 0\.\d+ of FP32's size"):
        calibrate(_recipe(tiny_model, tmp_path, budget="size=0.05"), QUIET)
    with pytest.raises(RecipeError, match="'nothing' names no convolution or linear layer"):
        calibrate(_recipe(tiny_model, tmp_path, keep_float=["nothing"]), QUIET)
    with pytest.raises(RecipeError, match="names every layer"):
        calibrate(_recipe(tiny_model, tmp_path, keep_float=["*"]), QUIET)


def test_a_choice_is_continued_from_its_checkpoint(
    made: Made, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = _recipe(tiny_model, tmp_path, budget="size=0.18")
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "fit_network", _killed)
        with pytest.raises(KeyboardInterrupt):
            calibrate(recipe, QUIET)
        patch.setattr(module, "final_errors", _killed)
        patch.undo()
        patch.setattr(module, "final_errors", _killed)
        _, continued, _ = calibrate(recipe, QUIET)
    afresh = made[1]
    assert _widths(continued) == _widths(afresh)
    assert all(torch.equal(layer.weight_q, afresh.layers[name].weight_q) for name, layer in continued.layers.items())
    assert {**continued.record, "recipe": None} == {**afresh.record, "recipe": None}


def _killed(*_given: object) -> None:
    raise KeyboardInterrupt


def test_a_missed_psnr_is_exit_code_1(tiny_model: Path, tmp_path: Path) -> None:
    flags = ["--model", str(tiny_model), "--out", str(tmp_path), "--steps", "4", "--step-groups", "2", "--samples", "8"]
    done = CliRunner().invoke(app, ["calibrate", *flags, "--method", "mse", "--budget", "size=0.2,psnr>=90"])
    assert done.exit_code == 1
    assert "not met" in done.output
    assert Artifact.load(tmp_path / "calibration").record["budget"]["asked"] == "size=0.2,psnr>=90"
