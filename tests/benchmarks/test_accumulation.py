"""Sources of errors are switched one by one, and the benchmark runs on artifacts that it makes and on those of a folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.error_sources import PartlyQuantized, Source, sources_of
from torch import Tensor

from benchmarks import accumulation
from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.finalize import finalize
from dq_toolchain.calibrate.ranges.quantized import quantize_with
from dq_toolchain.calibrate.run import calibrate
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork
from tests.calibrate.conftest import QUIET, measured, tiny_recipe
from tests.tiny import tiny_unet, write_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def made(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Context]:
    """Ranges only, attention products quantized, 4-bit weights, biases as a fit leaves them: not those of FP32."""
    ready = measured(
        model, tmp_path_factory.mktemp("made"), quantize={"attention": "int8", "weight_bits": 4, "step_groups": 2}
    )
    network = quantize_with(ready.context, ready.scale, ready.zero_point, ready.recipe)
    artifact = finalize(network, ready.context, {})
    biases = {f"{name}.bias" for name in artifact.layers}
    floats = {name: value + 0.01 * (name in biases) for name, value in artifact.float_parameters.items()}
    return replace(artifact, float_parameters=floats), ready.context


def output(network: PartlyQuantized | SimulatedNetwork, context: Context, k: int) -> Tensor:
    network.set_step(k)
    return context.denoiser(network, context.samples)(context.samples.start, k)


def error(artifact: Artifact, context: Context, source: Source, k: int = 3) -> float:
    exact = context.denoiser(context.network, context.samples)(context.samples.start, k)
    return float((output(PartlyQuantized(artifact, context.network, source), context, k) - exact).norm() / exact.norm())


def with_ranges(artifact: Artifact, factor: float) -> Artifact:
    return replace(artifact, scale=artifact.scale * factor)


@torch.no_grad()
def test_all_sources_together_are_the_simulation(made: tuple[Artifact, Context]) -> None:
    artifact, context = made
    for k in (0, 3):
        wanted = output(SimulatedNetwork(artifact, "fake_quantize"), context, k)
        found = output(PartlyQuantized(artifact, context.network, "all"), context, k)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_each_source_is_its_own(made: tuple[Artifact, Context]) -> None:
    artifact, context = made
    assert sources_of(artifact) == ("all", "weights", "activations", "clipping", "attention")
    wide, cut = with_ranges(artifact, 64.0), with_ranges(artifact, 1 / 16)
    assert error(wide, context, "clipping") < 1e-5  # no value is beyond the range
    assert error(cut, context, "clipping") > 0.05
    assert error(wide, context, "weights") == error(cut, context, "weights") > 0.0
    assert 0.0 < error(artifact, context, "attention") < error(artifact, context, "activations")
    assert error(wide, context, "activations") > error(artifact, context, "activations")
    integers = {name: replace(layer, weight_scale=2 * layer.weight_scale) for name, layer in artifact.layers.items()}
    other = replace(artifact, layers=integers)
    for source in ("activations", "clipping", "attention"):
        assert error(other, context, source) == error(artifact, context, source)  # weights and biases are FP32's
    assert error(other, context, "weights") > 2 * error(artifact, context, "weights")


def arguments(tmp_path: Path, *more: str) -> Any:
    return accumulation.parser().parse_args(["--seeds", "3", "--json", str(tmp_path / "rows.json"), *more])


def test_artifacts_are_made_measured_and_written(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dq.toml").write_text('[calibrate]\nsamples = 8\nbatch = 4\nwarmup = 2\n[run]\ndevice = "cpu"\n')
    rows = accumulation.main(
        arguments(
            tmp_path, "--model", str(model), "--recipe", str(tmp_path / "dq.toml"), "--steps", "3", "--effort", "quick",
            "--bits", "W8A8", "--fits", "ranges,single-step", "--sources", "all,weights,attention",
        )
    )  # fmt: skip
    assert [(row["fit"], row["source"]) for row in rows] == [
        ("ranges", "all"), ("ranges", "weights"), ("single-step", "all"), ("single-step", "weights")
    ]  # fmt: skip
    assert rows[0]["stages"] == []
    assert [stage.get("horizon") for stage in rows[2]["stages"]] == [None, 1]
    assert json.loads((tmp_path / "rows.json").read_text()) == rows
    for row in rows:
        assert len(row["psnr"]) == len(row["closed_power"]) == 3
        assert torch.tensor(row["correlation"]).shape == (3, 3)
        assert row["closed_ratio"]["p10"] <= row["closed_ratio"]["median"] <= row["closed_ratio"]["p90"]
    printed = capsys.readouterr().out
    assert "closed / incoherent" in printed
    assert "correlation of the steps' final errors" in printed


def test_an_artifact_of_a_folder_is_measured_with_the_model_it_names(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, artifact, _ = calibrate(tiny_recipe(model, tmp_path, calibrate={"warmup": 1, "iterations": 0}), QUIET)
    (row,) = accumulation.main(arguments(tmp_path, "--artifact", str(folder), "--sources", "all"))
    assert (row["fit"], row["steps"], row["stages"]) == ("accuquant", 4, artifact.record["stages"])
    other = write_tiny_model(tmp_path / "other")
    tiny_unet(seed=5).save_pretrained(other / "unet")
    with pytest.raises(SystemExit, match=r"other weights than .* with --model"):
        accumulation.main(arguments(tmp_path, "--artifact", str(folder), "--model", str(other)))


@pytest.mark.parametrize(
    ("given", "said"), [(("--sources", "odd"), "got 'odd', allowed are all"), (("--seeds", "1"), "at least 2")]
)
def test_what_cannot_be_measured_is_refused(given: tuple[str, ...], said: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=said):
        accumulation.main(arguments(tmp_path, *given))
