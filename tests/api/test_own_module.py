"""A module that no config describes goes through the whole chain, and is built again from the caller's module only."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

import dq_toolchain as dq
from dq_toolchain.toolchain.quant.layers import OutputFirst
from dq_toolchain.toolchain.simulation.network import SimulatedLayer, SimulatedNetwork
from tests import modules, tiny
from tests.api.conftest import FAST, SEEDS, calibrated_wave


def test_rows_from_module_to_verdict(wave: dq.Calibration, wave_bundle: dq.Bundle) -> None:
    report = dq.run(wave_bundle)
    verdict = dq.validate(report)
    assert verdict.outcome == "pass", [check.detail for check in verdict.checks if not check.passed]
    assert report.data["runtime"]["name"] == "ONNX Runtime"
    kinds = {site.layer: site.kind for site in wave.artifact.sites}
    assert kinds == {
        "into": "conv1d",
        "down": "conv1d",
        "time": "linear",
        "words": "linear",
        "up": "conv_transpose1d",
        "out": "conv1d",
    }
    operations = {node.op_type for node in onnx.load(min((wave_bundle.folder / "model").glob("*.onnx"))).graph.node}
    assert {"Conv", "ConvTranspose", "QuantizeLinear"} <= operations


def test_pictures_through_transposed_convolutions_of_two_groups(tmp_path: Path) -> None:
    calibration = dq.calibrate(
        modules.picture(), out=tmp_path, scheduler=tiny.scheduler(), sample_shape=(1, 8, 8), recipe=SEEDS, **FAST
    )
    verdict = dq.validate(dq.run(dq.export(calibration, "tensorrt", step_groups_as="input")))
    assert verdict.outcome == "pass", [check.detail for check in verdict.checks if not check.passed]


def test_the_simulation_is_near_the_module(wave: dq.Calibration) -> None:
    reference = wave.reference
    error = (reference.simulation_latents[-1] - reference.fp32_latents[-1]).norm() / reference.fp32_latents[-1].norm()
    assert 1e-5 < error < 0.1


def test_every_layer_is_simulated_in_integers(wave: dq.Calibration) -> None:
    simulated = SimulatedNetwork(wave.artifact)
    layers = [each for each in simulated.modules() if isinstance(each, SimulatedLayer)]
    assert len(layers) == 6
    assert not [each for each in simulated.modules() if isinstance(each, nn.Conv1d | nn.Linear | OutputFirst)]


def test_from_a_folder_the_module_is_given_again(wave: dq.Calibration, wave_bundle: dq.Bundle, tmp_path: Path) -> None:
    other = modules.wave(seed=7)  # its weights do not count
    again = dq.export(wave.folder, "tensorrt", module=other, out=tmp_path / "again")
    files = again.description.files
    assert files
    assert {name: digest for name, digest in files.items() if name.endswith((".onnx", ".bin"))} == {
        name: digest for name, digest in wave_bundle.description.files.items() if name.endswith((".onnx", ".bin"))
    }
    assert torch.equal(other.into.weight, modules.wave(seed=7).into.weight)


def test_without_the_module_nothing_is_built(wave: dq.Calibration, tmp_path: Path) -> None:
    for target in ("tensorrt", "coreml", "coreai", "executorch"):
        with pytest.raises(dq.errors.ArtifactError, match=r"export\(artifact, target, module=\.\.\.\)"):
            dq.export(wave.folder, target, out=tmp_path / target)
        assert not (tmp_path / target).exists()


def test_another_module_is_refused_by_name(wave: dq.Calibration, tmp_path: Path) -> None:
    with pytest.raises(
        dq.errors.ArtifactError, match="is missing, unknown or of another shape in the Wave that was given"
    ):
        dq.export(wave.folder, "tensorrt", module=modules.Wave(width=8), out=tmp_path / "out")


@pytest.mark.parametrize("target", ["coreml", "coreai", "executorch"])
def test_layers_that_a_target_has_no_integers_for_are_refused_with_what_to_do(
    target: str, wave: dq.Calibration, tmp_path: Path
) -> None:
    with pytest.raises(dq.errors.BackendError, match=r"(into|up) is a conv(1d|_transpose1d), .*keep_float"):
        dq.export(wave, target, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_killed_call_with_other_code_starts_afresh(tmp_path: Path) -> None:
    class Other(modules.Wave):
        pass

    from dq_toolchain.toolchain.models.own import code_digest

    assert code_digest(modules.wave()) == code_digest(modules.wave(seed=1))
    assert code_digest(modules.wave()) != code_digest(Other())
    assert code_digest(modules.wave()) != code_digest(modules.Wave(width=8))


class _Circular(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Conv1d(2, 8, 3, padding=1, padding_mode="circular")
        self.out = nn.Conv1d(8, 2, 3, padding=1)

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> tuple[torch.Tensor, None]:
        return self.out(self.into(sample)), None


def test_what_has_no_integer_form_is_refused_by_name_and_may_stay_in_float(tmp_path: Path) -> None:
    options = {"scheduler": tiny.scheduler(), "sample_shape": (2, 16), **FAST}
    with pytest.raises(dq.errors.ModelError, match=r"into has padding_mode 'circular'.* keep_float"):
        dq.calibrate(_Circular(), out=tmp_path, **options)
    kept = dq.calibrate(_Circular(), out=tmp_path, keep_float=["into"], **options)
    assert kept.artifact.float_layers == ("into",)


def test_one_layer_under_two_names_is_refused(tmp_path: Path) -> None:
    twice = modules.wave()
    twice.again = twice.out
    with pytest.raises(dq.errors.ModelError, match="out and again are one module under two names"):
        dq.calibrate(twice, out=tmp_path, scheduler=tiny.scheduler(), sample_shape=(2, 16), **FAST)


@pytest.mark.parametrize("target", ["coreml", "coreai"])
def test_apples_targets_hold_rows_in_integers_and_a_transposed_convolution_in_float(
    target: str, tmp_path: Path
) -> None:
    calibration = calibrated_wave(tmp_path, keep_float=["up"], steps=2, step_groups=1, method="mse")
    verdict = dq.validate(dq.run(dq.export(calibration, target), seeds=2))
    assert verdict.outcome != "fail", [check.detail for check in verdict.checks if not check.passed]
    with pytest.raises(dq.errors.BackendError, match=r"up is a conv_transpose1d, .*in float either"):
        dq.export(calibration, "executorch")


def test_a_layer_that_forward_does_not_call_is_refused(tmp_path: Path) -> None:
    idle = modules.wave()
    idle.spare = nn.Linear(2, 2)
    with pytest.raises(dq.errors.ModelError, match="spare is never called in a forward pass; remove it"):
        dq.calibrate(
            idle,
            out=tmp_path,
            scheduler=tiny.scheduler(),
            sample_shape=(2, 16),
            conditioning=modules.words(),
            **FAST,
        )


def test_kept_layers_stay_in_float_on_the_target(tmp_path: Path) -> None:
    calibration = calibrated_wave(tmp_path, keep_float=["up", "into"], method="mse")
    assert calibration.artifact.float_layers == ("into", "up")
    bundle = dq.export(calibration, "tensorrt")
    assert sum(row.count for row in bundle.description.operations if "keep_float" in row.why) == 4
