"""`analyze`: from a calibration on disk to shares and a proposal; killed runs, other models, and what it proposes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from dq_toolchain.calibrate.bits import analysis
from dq_toolchain.calibrate.bits.analysis import analyze, cheap, rows_of
from dq_toolchain.calibrate.bits.layer_errors import Shares
from dq_toolchain.calibrate.run import calibrate
from dq_toolchain.calibrate.work.checkpoint import CheckpointFile
from dq_toolchain.toolchain.console.progress import Advance, Reporter
from dq_toolchain.toolchain.errors import ArtifactError, ModelError, RecipeError
from dq_toolchain.toolchain.formats.artifact import Artifact, load_reference
from dq_toolchain.toolchain.metrics import psnr
from tests.calibrate.conftest import QUIET, tiny_recipe

RUNS = 4


@pytest.fixture(scope="module")
def folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibration on disk."""
    return calibrate(tiny_recipe(tiny_model, tmp_path_factory.mktemp("analyze")), QUIET)[0]


class Killed(Reporter):
    """Ends the run when ``after`` of its samples are done; counts them."""

    def __init__(self, after: int) -> None:
        super().__init__(quiet=True)
        self.after, self.done = after, 0

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Advance]:
        def advance(n: int = 1, note: str = "", **_: int) -> None:
            self.done += n if title == "errors of layers" else 0
            if self.done >= self.after:
                raise KeyboardInterrupt

        yield advance


def test_shares_of_all_layers_sum_up_and_the_largest_come_first(folder: Path) -> None:
    found = analyze(folder, QUIET, runs=RUNS)
    assert found.weights + found.activations == pytest.approx(1)
    assert sum(row.share for row in found.layers) == pytest.approx(1)
    assert sum(row.multiplications for row in found.layers) == pytest.approx(1)
    assert [row.share for row in found.layers] == sorted((row.share for row in found.layers), reverse=True)
    assert {row.layer for row in found.layers} == {site.layer for site in Artifact.load(folder).sites}
    assert json.loads(json.dumps(found.to_json()))["runs"] == RUNS
    assert not (folder.parent / "calibration.analysis").exists()


def test_a_killed_run_goes_on_and_ends_alike(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = analyze(folder, QUIET, runs=RUNS)
    monkeypatch.setattr(CheckpointFile, "due", True)
    with pytest.raises(KeyboardInterrupt):
        analyze(folder, Killed(after=3), runs=RUNS)
    rest = Killed(after=10**6)
    assert analyze(folder, rest, runs=RUNS) == whole
    assert rest.done == RUNS  # two of them at once, out of the checkpoint
    assert analyze(folder, QUIET, runs=2) != whole


def test_a_model_that_moved_is_found_where_it_is_said_to_be(folder: Path, tiny_model: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(tiny_model, moved)
    assert analyze(folder, QUIET, runs=2, model=moved) == analyze(folder, QUIET, runs=2)


def test_a_calibration_with_weights_in_files_is_measured_alike(tiny_model: Path, tmp_path: Path) -> None:
    """`--offload`: activation checkpointing, and weights that the system may drop. The same shares of the same artifact."""
    folder, artifact, reference = calibrate(tiny_recipe(tiny_model, tmp_path / "offload", run={"offload": True}), QUIET)
    offloaded = analyze(folder, QUIET, runs=2)
    recipe = {**artifact.record["recipe"], "run": {**artifact.record["recipe"]["run"], "offload": False}}
    replace(artifact, record={**artifact.record, "recipe": recipe}).save(tmp_path / "plain", reference)
    plain = analyze(tmp_path / "plain", QUIET, runs=2)
    for one, other in zip(offloaded.layers, plain.layers, strict=True):
        assert one.layer == other.layer
        assert one.share == pytest.approx(other.share, rel=1e-4)


def test_another_models_weights_are_refused(folder: Path, tiny_model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    file = next(other.rglob("*.safetensors"))
    tensors = load_file(file)
    tensors["conv_in.bias"] = tensors["conv_in.bias"] + 1
    save_file(tensors, file)
    with pytest.raises(ModelError, match=r"not those that .* was calibrated from; give that model"):
        analyze(folder, QUIET, runs=2, model=other)


def test_a_model_that_was_in_memory_is_refused(folder: Path, tmp_path: Path) -> None:
    artifact = Artifact.load(folder)
    recipe = {
        **artifact.record["recipe"],
        "model": {**artifact.record["recipe"]["model"], "path": "<UNet2DModel in memory>"},
    }
    shutil.copytree(folder, tmp_path / "calibration")
    file = tmp_path / "calibration"
    changed = replace(artifact, record={**artifact.record, "recipe": recipe})
    changed.save(file, load_reference(folder))
    with pytest.raises(ArtifactError, match="calibrated from a UNet2DModel in memory"):
        analyze(file, QUIET, runs=2)


@pytest.mark.parametrize("runs", [0, 1, 4097])
def test_runs_are_bounded(runs: int, folder: Path) -> None:
    with pytest.raises(RecipeError, match=f"--runs: got {runs}, allowed are 2 to 4096"):
        analyze(folder, QUIET, runs=runs)


def test_layers_that_matter_and_cost_little_are_proposed(folder: Path) -> None:
    artifact = Artifact.load(folder)
    names = [site.layer for site in artifact.sites if site.weight_bits is not None]
    large, light, dear = names[0], names[1], names[2]
    costs = dict.fromkeys(names, 1000) | {light: 1, dear: 10**6}
    none = dict.fromkeys(names, 0.0)
    shares = Shares(
        weights=none | {light: 0.5, dear: 0.3},
        activations=none | {large: 0.2},
        together=(0.5, 1.0),
        multiplications=costs,
    )
    assert cheap(rows_of(artifact, shares)) == (light, large)
    alike = dict.fromkeys(names, 0.5 / len(names))
    assert cheap(rows_of(artifact, replace(shares, weights=alike, activations=alike))) == ()


def test_what_is_proposed_is_run_with_these_layers_in_float(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them in float are FP32 itself, which has no error left: 100 dB, where PSNR ends."""
    artifact, reference = Artifact.load(folder), load_reference(folder)
    monkeypatch.setattr(analysis, "cheap", lambda rows: tuple(row.layer for row in rows))
    gain = analyze(folder, QUIET, runs=2).in_float
    assert gain is not None
    assert set(gain.layers) == set(artifact.layers)
    values = psnr(reference.simulation_latents[-1], reference.fp32_latents[-1])
    assert gain.mean == pytest.approx(float((100 - values).mean()), abs=1.0)
    assert gain.low < gain.mean < gain.high
    assert gain.seeds == reference.seeds
