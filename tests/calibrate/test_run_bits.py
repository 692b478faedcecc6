"""Activations of 16 bits and outputs in the artifact, from the recipe to the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dq_toolchain.calibrate import pipeline
from dq_toolchain.calibrate.finalize import finalize
from dq_toolchain.calibrate.ranges.quantized import quantize_with
from dq_toolchain.calibrate.run import calibrate
from dq_toolchain.calibrate.work import checkpoint
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.disk.files import sha256
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.listing import JSON, TENSOR_FILES
from dq_toolchain.toolchain.metrics import psnr
from dq_toolchain.toolchain.models.loading import load_model
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork
from tests.calibrate.conftest import QUIET, measured, tiny_recipe
from tests.tiny import noise

BYTES = (*TENSOR_FILES, "reference.safetensors", JSON)
QUANTIZE: dict[str, dict[str, Any]] = {
    "A16, ranges": {"activation_bits": 16, "attention": "int8", "outputs": "range"},
    "A8, fitted": {"attention": "int8", "outputs": "fitted", "weight_bits": 4},
}


def decibels(tiny_model: Path, out: Path, **quantize: Any) -> float:
    few = {"iterations": 0, "settling": 0, "group_iterations": 0}
    recipe = tiny_recipe(tiny_model, out, quantize=quantize, calibrate=few, reference={"seeds": 16})
    folder, artifact, reference = calibrate(recipe, QUIET)
    assert len(Artifact.load(folder).sites) == len(artifact.sites)
    return float(psnr(reference.simulation_latents[-1], reference.fp32_latents[-1]).median())


def test_activations_of_16_bits_lose_less_than_those_of_8(tiny_model: Path, tmp_path: Path) -> None:
    narrow, wide = (
        decibels(tiny_model, tmp_path / str(bits), activation_bits=bits, attention="int8") for bits in (8, 16)
    )
    assert wide > narrow + 2
    fitted = decibels(tiny_model, tmp_path / "fitted", activation_bits=16, attention="int8", outputs="fitted")
    assert fitted > narrow + 2  # outputs of 16 bits cost next to nothing


@pytest.mark.parametrize("bits", [8, 16])
def test_wide_activations_have_float_parameters_that_fp16_holds(bits: int, tiny_model: Path, tmp_path: Path) -> None:
    """Those between products; biases of products are added in integers, and stay."""
    nothing = {"rounding": "nearest", "warmup": 0, "settling": 0, "group_iterations": 0, "iterations": 0}
    recipe = tiny_recipe(tiny_model, tmp_path, quantize={"activation_bits": bits}, calibrate=nothing)
    artifact = pipeline.calibrated(recipe, QUIET, tmp_path / "work").artifact
    wanted = dict(load_model(tiny_model).network.named_parameters())
    biases = {f"{layer}.bias" for layer in artifact.layers}
    between = {name for name in artifact.float_parameters if name not in biases and name in wanted}
    assert any("norm" in name for name in between)
    for name in between:
        expected = wanted[name].half().float() if bits == 16 else wanted[name]
        assert torch.equal(artifact.float_parameters[name], expected), name


class Killed(BaseException):
    """As a signal: nothing catches it."""


@pytest.mark.parametrize(("name", "method"), [("A16, ranges", "accuquant"), ("A8, fitted", "qdiffusion")])
def test_a_run_that_was_killed_ends_in_the_same_artifact(
    name: str, method: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed as soon as the fit left a checkpoint of its own, which the second run goes on from."""
    monkeypatch.setattr(checkpoint, "SECONDS_BETWEEN", 0.0)

    def run(out: str) -> None:
        sections: dict[str, dict[str, Any]] = {
            "sampler": {"steps": 2},
            "quantize": QUANTIZE[name],
            "calibrate": {"method": method, "samples": 4},
            "blocks": {"rows": 8, "batch": 4, "iterations": 3, "activation_iterations": 2},
        }
        calibrate(tiny_recipe(tiny_model, tmp_path / out, **sections), QUIET)

    run("straight")
    save, fits = checkpoint.CheckpointFile.save, list[str]()

    def killing(self: checkpoint.CheckpointFile, *given: Any) -> None:
        save(self, *given)
        if "fit-" in self.path.name:
            fits.append(self.path.name)
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.CheckpointFile, "save", killing)
        with pytest.raises(Killed):
            run("killed")
    assert (tmp_path / "killed" / "calibration.work" / fits[0]).is_file()
    run("killed")
    for file in BYTES:
        one, other = (tmp_path / out / "calibration" / file for out in ("straight", "killed"))
        assert sha256(one) == sha256(other), file


def test_scales_of_outputs_are_learned_and_the_simulation_runs_on_them(tiny_model: Path, tmp_path: Path) -> None:
    """As any other: a step of the optimizer moves all of the step group in force, and the artifact holds what came of it."""
    ready = measured(
        tiny_model, tmp_path, quantize={"attention": "int8", "outputs": "fitted"}, calibrate={"samples": 3}
    )
    network = quantize_with(ready.context, ready.scale, ready.zero_point, ready.recipe)
    results = [i for i, site in enumerate(network.sites) if site.is_result]
    assert len(results) == len(network.layers) + sum(site.operand in ("q", "probs") for site in network.sites)
    given = noise(2), torch.tensor([600.0, 30.0])
    optimizer = torch.optim.SGD(network.scale_parameters().values(), lr=1.0)
    network(*given, class_labels=torch.tensor([2, 7]))[0].square().sum().backward()
    for parameter in network.scale_parameters().values():
        assert parameter.grad is not None
        parameter.grad.sign_().mul_(0.1)  # a step that fp16 shows
    optimizer.step()
    artifact = finalize(network, ready.context, {})
    moved = artifact.scale[:, results] != ready.scale[:, results]
    assert float(moved[0].float().mean()) > 0.9  # but for results that the output does not depend on
    assert not moved[1].any()
    simulated = SimulatedNetwork(artifact)
    with torch.no_grad():
        x = simulated(*given, class_labels=torch.tensor([2, 7]))[0]
    scale = artifact.scale[0, artifact.site_index("conv_out", "output")]
    assert torch.equal(x, (x / scale).round().clamp(-128, 127) * scale)


def test_narrow_ranges_of_16_bits_are_named(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = {"rounding": "nearest", "warmup": 0, "settling": 0, "group_iterations": 0, "iterations": 0}
    recipe = tiny_recipe(tiny_model, tmp_path, quantize={"activation_bits": 16}, calibrate=nothing)
    made = pipeline.calibrated(recipe, Reporter(), tmp_path / "work")
    raised = made.artifact.record["at_smallest_scale"]
    assert raised
    said = " ".join(capsys.readouterr().err.split())
    assert "activations of 16 bits within 2 of zero have steps of 6.1e-05" in said
    assert raised[0] in said
    assert "quantized coarser than chosen" not in said
