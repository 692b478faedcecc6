"""The whole calibration on a tiny model: artifact, simulation, resume after SIGKILL, errors that name things."""

from __future__ import annotations

import math
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from dq_toolchain.calibrate import fit, pipeline
from dq_toolchain.calibrate.fitting import Fitted
from dq_toolchain.calibrate.run import calibrate
from dq_toolchain.calibrate.setup import setup
from dq_toolchain.toolchain.artifact import TENSOR_FILES, Artifact, float_parameters, load_reference
from dq_toolchain.toolchain.errors import CalibrationError, ModelError, RecipeError, ToolchainError
from dq_toolchain.toolchain.files import sha256
from dq_toolchain.toolchain.metrics import psnr
from dq_toolchain.toolchain.progress import Reporter
from dq_toolchain.toolchain.recipe_file import load_recipe
from dq_toolchain.toolchain.sites import attention_layers
from tests.calibrate.conftest import tiny_recipe
from tests.tiny import noise, tiny_condition_unet, tiny_unet, write_tiny_model

QUIET = Reporter(quiet=True)


def test_artifact_loads_bit_equal_and_holds_every_site(tiny_model: Path, tmp_path: Path) -> None:
    folder, artifact, reference = calibrate(tiny_recipe(tiny_model, tmp_path), QUIET)
    loaded, again = Artifact.load(folder), load_reference(folder)
    assert torch.equal(loaded.scale, artifact.scale)
    assert torch.equal(loaded.zero_point, artifact.zero_point)
    for name, layer in artifact.layers.items():
        assert torch.equal(loaded.layers[name].weight_q, layer.weight_q)
        assert torch.equal(loaded.layers[name].weight_scale, layer.weight_scale)
    assert torch.equal(again.simulation_latents, reference.simulation_latents)
    assert loaded.table == artifact.table
    assert [s.weight_bits for s in loaded.sites if s.kind != "attention"].count(None) == 0
    assert not (tmp_path / "calibration.work").exists()


def test_learned_biases_and_nothing_else_in_float_change(tiny_model: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tiny_model, tmp_path)
    _, artifact, _ = calibrate(recipe, QUIET)
    before = float_parameters(setup(recipe).prepared.unet, artifact.layers)
    assert set(artifact.float_parameters) == set(before)
    changed = {name for name, value in artifact.float_parameters.items() if not torch.equal(value, before[name])}
    assert changed
    assert changed <= {f"{name}.bias" for name in artifact.layers}


@pytest.mark.parametrize(
    "sections",
    [
        {"sampler": {"steps": 4, "guidance": 2.0}},
        {"quantize": {"step_groups": 4, "scheme": "affine", "attention": "int8"}},
        {"quantize": {"step_groups": 1, "weight_bits": 4, "split": False}},
        {"calibrate": {"start": "inherited", "gradient": "surrogate"}},
        {"calibrate": {"rounding": "nearest", "ranges": "percentile"}},
        {"calibrate": {"gradient": "full", "ranges": "minmax"}},
    ],
)
def test_every_setting_gives_a_simulation_near_fp32(
    sections: dict[str, dict[str, object]], tiny_model: Path, tmp_path: Path
) -> None:
    fast = {"warmup": 2, "iterations": 2, "settling": 2, "group_iterations": 1} | sections.get("calibrate", {})
    _, _artifact, reference = calibrate(tiny_recipe(tiny_model, tmp_path, **{**sections, "calibrate": fast}), QUIET)
    error = (reference.simulation_latents[-1] - reference.fp32_latents[-1]).norm() / reference.fp32_latents[-1].norm()
    assert 1e-5 < error < 0.2


def test_conditional_unet_from_a_conditioning_file(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = write_tiny_model(tmp_path / "model", tiny_condition_unet())
    with pytest.raises(RecipeError, match="encoder_hidden_states"):
        calibrate(tiny_recipe(model, tmp_path / "out"), QUIET)
    states = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    save_file(
        {"cond.encoder_hidden_states": states, "uncond.encoder_hidden_states": states * 0},
        tmp_path / "text.safetensors",
    )
    _, artifact, reference = calibrate(
        tiny_recipe(
            model,
            tmp_path / "out",
            conditioning={"file": tmp_path / "text.safetensors"},
            sampler={"steps": 4, "guidance": 3.0},
        ),
        QUIET,
    )
    assert any("attn2.to_k" in site.layer for site in artifact.sites)
    assert reference.conditioning.uncond["encoder_hidden_states"].shape == (2, 5, 8)


def test_held_out_samples_are_the_same_for_every_calibration_seed(tiny_model: Path, tmp_path: Path) -> None:
    references = [
        calibrate(
            tiny_recipe(tiny_model, tmp_path / str(seed), run={"out": tmp_path / str(seed), "seed": seed}), QUIET
        )[2]
        for seed in (0, 1)
    ]
    assert torch.equal(references[0].start, references[1].start)
    assert not torch.equal(references[0].simulation_latents[-1], references[1].simulation_latents[-1])


def test_fitting_lowers_the_error_of_four_bit_weights(tiny_model: Path, tmp_path: Path) -> None:
    errors = {}
    for name, iterations in (("ranges", 0), ("fitted", 40)):
        settings = {
            "samples": 12,
            "batch": 6,
            "warmup": iterations,
            "iterations": iterations,
            "settling": iterations,
            "group_iterations": 0,
            "horizon": 4,
            "scale_lr": 2e-3,
            "rounding_lr": 1e-2,
        }
        _, _, reference = calibrate(
            tiny_recipe(
                tiny_model,
                tmp_path / name,
                calibrate=settings,
                reference={"seeds": 8},
                quantize={"weight_bits": 4, "step_groups": 2},
            ),
            QUIET,
        )
        errors[name] = float((reference.simulation_latents[-1] - reference.fp32_latents[-1]).square().mean())
    assert errors["fitted"] < 0.7 * errors["ranges"]


SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from dq_toolchain.calibrate import checkpoint
checkpoint.SECONDS_BETWEEN = 0.05
from dq_toolchain.toolchain.entry import run_command
sys.exit(run_command(sys.argv[1:]))
"""


def test_a_run_killed_at_random_points_ends_in_the_bit_identical_artifact(tiny_model: Path, tmp_path: Path) -> None:
    def command(out: str) -> list[str]:
        return [
            sys.executable,
            "-c",
            SCRIPT,
            "calibrate",
            "--model",
            str(tiny_model),
            "--steps",
            "4",
            "--step-groups",
            "2",
            "--samples",
            "8",
            "--warmup",
            "40",
            "--iterations",
            "40",
            "--horizon",
            "2",
            "--out",
            str(tmp_path / out),
            "--device",
            "cpu",
        ]

    subprocess.run(command("straight"), check=True, capture_output=True)
    dice, kills = random.Random(11), 0
    for _ in range(5):
        process = subprocess.Popen(command("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (tmp_path / "killed" / "calibration.work").exists():
            time.sleep(0.02)
        time.sleep(dice.uniform(0.0, 1.5))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills >= 2
    subprocess.run(command("killed"), check=True, capture_output=True)
    for name in (*TENSOR_FILES, "reference.safetensors", "calibration.json"):
        assert sha256(tmp_path / "killed" / "calibration" / name) == sha256(
            tmp_path / "straight" / "calibration" / name
        ), name


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
    (site, rows), = artifact.record["constant_sites"].items()
    assert site == "mid_block.resnets.0.conv1:input"
    assert [row[0] for row in rows] == [0, 1]
    assert [row[1] for row in rows] == pytest.approx([value] * 2)
    text = " ".join(capsys.readouterr().err.split())
    assert f"never change, quantized to that value: {site} ({value:g})" in text
    assert "weights too small for 2.3e-13, the smallest scale, quantized coarser than chosen: conv_in (4 of 16 channels)" in text
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


def test_a_diverging_fit_stops_with_the_reason_and_keeps_its_checkpoint(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "DIVERGED", 0.01)
    monkeypatch.setattr(fit, "EARLY", 1)
    with pytest.raises(CalibrationError, match="diverges"):
        calibrate(tiny_recipe(tiny_model, tmp_path), QUIET)
    assert _checkpoints(tmp_path) == ["ranges", "rollouts"]
    assert not (tmp_path / "calibration").exists()


def test_a_full_disk_keeps_the_last_good_checkpoint(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dq_toolchain.toolchain import files

    real = safetensors.torch.save_file

    def full(tensors: object, path: Path, **keywords: object) -> None:
        if "fit-" in Path(path).name:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(tensors, path, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(ToolchainError, match=r"fit-\w+\.safetensors.*No space left"):
        calibrate(tiny_recipe(tiny_model, tmp_path), QUIET)
    assert _checkpoints(tmp_path) == ["ranges", "rollouts"]


def test_a_figure_that_is_no_number_costs_its_own_place_only(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = {"warmup": 0, "iterations": 0, "settling": 0, "group_iterations": 0}
    fitted = Fitted([{"stage": "x", "validation_psnr": math.inf}], None, 0.0)
    monkeypatch.setattr(pipeline, "fit_network", lambda *_: fitted)
    folder, artifact, _ = calibrate(tiny_recipe(tiny_model, tmp_path, calibrate=nothing), Reporter())
    assert "record.stages.0.validation_psnr is no finite number and becomes null" in " ".join(capsys.readouterr().err.split())
    assert Artifact.load(folder).record["stages"] == [{"stage": "x", "validation_psnr": None}] == artifact.record["stages"]
    assert artifact.record["method"]["fit"]["multi_step"]["constants"]["fit.AVERAGE"] == fit.AVERAGE


def test_what_cannot_be_written_is_said_before_any_work(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "measure", lambda *_: pytest.fail("that is work"))
    recipe = tiny_recipe(tiny_model, tmp_path)
    (tmp_path / "calibration").mkdir()
    (tmp_path / "calibration" / "weights.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ToolchainError, match=r"weights\.safetensors: what stands there is a link"):
        calibrate(recipe, QUIET)
    (tmp_path / "calibration" / "weights.safetensors").unlink()
    state = setup(recipe)
    state.model.scheduler_config["lambda_min_clipped"] = -math.inf
    monkeypatch.setattr(pipeline, "setup", lambda *_: state)
    with pytest.raises(ToolchainError, match=r"scheduler_config\.lambda_min_clipped is NaN, infinite"):
        calibrate(recipe, QUIET)


def test_another_list_of_sites_is_never_served_the_first_ones_ranges(tiny_model: Path, tmp_path: Path) -> None:
    """The same number of columns, other layers: every column must be what a fresh calibration gives."""
    def made(keep: str, work: Path) -> Artifact:
        nothing = {"rounding": "nearest", "warmup": 0, "settling": 0, "group_iterations": 0, "iterations": 0}
        recipe = tiny_recipe(tiny_model, tmp_path, quantize={"step_groups": 2, "keep_float": [keep]}, calibrate=nothing)
        return pipeline.calibrated(recipe, QUIET, work).artifact

    first = made("down_blocks.0.resnets.0.conv1", tmp_path / "work")
    second, fresh = (made("mid_block.resnets.0.conv1", tmp_path / name) for name in ("work", "fresh"))
    assert len(first.sites) == len(second.sites)
    assert torch.equal(second.scale, fresh.scale)
    assert torch.equal(second.zero_point, fresh.zero_point)
    stages = sorted(path.stem.split("-")[0] for path in (tmp_path / "work").glob("*.safetensors"))
    assert stages == ["ranges", "ranges", "rollouts"]  # what both consume alike is shared


def test_foreign_files_among_the_checkpoints_stay(tiny_model: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "calibration.work" / "thesis.txt"
    theirs.parent.mkdir()
    theirs.write_text("years of work")
    nothing = {"rounding": "nearest", "warmup": 0, "settling": 0, "group_iterations": 0, "iterations": 0}
    calibrate(tiny_recipe(tiny_model, tmp_path, calibrate=nothing), QUIET)
    assert list(theirs.parent.iterdir()) == [theirs]


def _checkpoints(out: Path) -> list[str]:
    return sorted(path.stem.split("-")[0] for path in (out / "calibration.work").glob("*.safetensors"))


def test_guidance_without_a_null_label_is_refused(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    (model / "dq.toml").unlink()
    with pytest.raises(RecipeError, match="null_label"):
        setup(load_recipe(None, {"model": {"path": model}, "sampler": {"guidance": 2.0}}))


def test_the_prepared_network_is_the_fp32_network(tiny_model: Path, tmp_path: Path) -> None:
    state = setup(tiny_recipe(tiny_model, tmp_path))
    assert state.prepared.splits
    x, time_, label = noise(2), torch.tensor([500.0, 100.0]), torch.tensor([1, 2])
    with torch.no_grad():
        split, whole = (net(x, time_, label).sample for net in (state.prepared.unet, state.model.unet))
    torch.testing.assert_close(split, whole, rtol=1e-5, atol=1e-5)
