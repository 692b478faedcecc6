"""Values that cannot be calibrated, or not as they are, are named by a whole calibration: site, reason, remedy."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from dq_toolchain.calibrate import pipeline
from dq_toolchain.calibrate.fitting.phase import FitResult
from dq_toolchain.calibrate.multistep import fit
from dq_toolchain.calibrate.run import calibrate
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.errors import CalibrationError, ModelError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.metrics import psnr
from dq_toolchain.toolchain.quant.sites import attention_layers
from tests.calibrate.conftest import QUIET, tiny_recipe
from tests.tiny import tiny_unet, write_tiny_model


def test_nan_in_a_weight_and_in_an_activation_are_named(tmp_path: Path) -> None:
    unet = tiny_unet()
    with torch.no_grad():
        unet.conv_out.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"conv_out\.weight"):
        calibrate(tiny_recipe(write_tiny_model(tmp_path / "nan", unet), tmp_path / "out"), QUIET)
    unet = tiny_unet()
    with torch.no_grad():
        unet.mid_block.resnets[0].norm1.weight.fill_(1e38)
    with pytest.raises(CalibrationError, match=r"mid_block\.resnets\.0\.conv1:input"):
        calibrate(
            tiny_recipe(write_tiny_model(tmp_path / "inf", unet), tmp_path / "out", conditioning={"null_label": 10}),
            QUIET,
        )


def test_constant_activations_and_zero_weights_are_calibrated_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a network without text, or whose last convolution of a block was never trained."""
    unet = tiny_unet()
    with torch.no_grad():
        norm = unet.mid_block.resnets[0].norm1
        norm.weight.zero_()
        norm.bias.fill_(0.3)
        unet.mid_block.resnets[1].conv2.weight.zero_()
        unet.conv_in.weight[:4] *= 1e-30
    recipe = tiny_recipe(write_tiny_model(tmp_path / "model", unet), tmp_path / "out", conditioning={"null_label": 10})
    folder, artifact, reference = calibrate(recipe, Reporter())
    value = float(F.silu(torch.tensor(0.3)))
    ((site, rows),) = artifact.record["constant_sites"].items()
    assert site == "mid_block.resnets.0.conv1:input"
    assert [row[0] for row in rows] == [0, 1]
    assert [row[1] for row in rows] == pytest.approx([value] * 2)
    text = " ".join(capsys.readouterr().err.split())
    assert f"never change, quantized to that value: {site} ({value:g})" in text
    assert (
        "weights too small for 2.3e-13, the smallest scale, quantized coarser than chosen: conv_in (4 of 16 channels)"
        in text
    )
    assert int(artifact.layers["mid_block.resnets.1.conv2"].weight_q.abs().max()) == 0
    assert (psnr(reference.simulation_latents[-1], reference.fp32_latents[-1]) > 20).all()
    assert Artifact.load(folder).record == artifact.record


def test_small_weights_give_the_artifact_of_large_ones(tmp_path: Path) -> None:
    """The same function, with a power of two moved through the attention: integers and errors stay."""
    made = []
    for name, power in (("plain", 1.0), ("moved", 2.0**17)):
        unet = tiny_unet()
        with torch.no_grad():
            for _, attention in attention_layers(unet):
                attention.to_v.weight.mul_(power)
                attention.to_v.bias.mul_(power)
                attention.to_out[0].weight.div_(power)
        recipe = tiny_recipe(
            write_tiny_model(tmp_path / name, unet), tmp_path / f"{name}-out", conditioning={"null_label": 10},
            calibrate={"method": "mse"},
        )  # fmt: skip
        made.append(calibrate(recipe, QUIET)[1:])
    (plain, plain_reference), (moved, moved_reference) = made
    for name, layer in plain.layers.items():
        assert torch.equal(moved.layers[name].weight_q, layer.weight_q)
    layer, moved_layer = (artifact.layers["mid_block.attentions.0.to_out.0"] for artifact in (plain, moved))
    assert torch.equal(moved_layer.weight_scale * 2.0**17, layer.weight_scale)
    assert int(moved_layer.weight_q.abs().amax(1).min()) == 127
    assert torch.equal(moved_reference.fp32_latents, plain_reference.fp32_latents)
    torch.testing.assert_close(moved_reference.simulation_latents, plain_reference.simulation_latents)


def test_values_beyond_fp16_are_named_with_the_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unet = tiny_unet()
    with torch.no_grad():
        unet.conv_in.weight.mul_(1e5)
        unet.conv_in.bias.mul_(1e5)
    recipe = tiny_recipe(
        write_tiny_model(tmp_path / "model", unet), tmp_path / "out", conditioning={"null_label": 10},
        calibrate={"method": "mse"},
    )  # fmt: skip
    artifact = calibrate(recipe, Reporter())[1]
    beyond = artifact.record["beyond_fp16"]
    assert beyond["conv_in"] > 65504
    assert "down_blocks.0.resnets.0.conv1:input" not in beyond
    text = " ".join(capsys.readouterr().err.split())
    assert f"conv_in ({beyond['conv_in']:.3g})" in text
    assert "--precision fp32" in text


def test_activations_too_small_for_an_fp16_scale_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unet = tiny_unet()
    with torch.no_grad():
        unet.conv_norm_out.weight.mul_(1e-4)
        unet.conv_norm_out.bias.mul_(1e-4)
    recipe = tiny_recipe(write_tiny_model(tmp_path / "model", unet), tmp_path / "out", conditioning={"null_label": 10})
    _, artifact, _ = calibrate(recipe, Reporter())
    assert artifact.record["at_smallest_scale"] == ["conv_out:input"]
    assert "conv_out:input" in capsys.readouterr().err


def test_a_figure_that_is_no_number_costs_its_own_place_only(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted = FitResult([{"stage": "x", "validation_psnr": math.inf}], None, 0.0)
    monkeypatch.setattr(pipeline, "fit_network", lambda *_: fitted)
    folder, artifact, _ = calibrate(tiny_recipe(tiny_model, tmp_path), Reporter())
    assert "record.stages.0.validation_psnr is no finite number and becomes null" in " ".join(
        capsys.readouterr().err.split()
    )
    assert (
        Artifact.load(folder).record["stages"] == [{"stage": "x", "validation_psnr": None}] == artifact.record["stages"]
    )
    assert artifact.record["method"]["fit"]["multi_step"]["constants"]["multistep.fit.AVERAGE"] == fit.AVERAGE
