"""Activations of 16 bits and outputs in the artifact, from the recipe to the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dq_toolchain.calibrate import pipeline
from dq_toolchain.calibrate.run import calibrate
from dq_toolchain.calibrate.work import checkpoint
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.disk.files import sha256
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.listing import JSON, TENSOR_FILES
from dq_toolchain.toolchain.metrics import psnr
from dq_toolchain.toolchain.quant.qparams import fp16_exact
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork
from tests.calibrate.conftest import QUIET, tiny_recipe
from tests.tiny import noise

BYTES = (*TENSOR_FILES, "reference.safetensors", JSON)
QUANTIZE: dict[str, dict[str, Any]] = {
    "A16, ranges": {"activation_bits": 16, "attention": "int8", "outputs": "range"},
    "A8, fitted": {"attention": "int8", "outputs": "fitted", "weight_bits": 4},
}


def decibels(tiny_model: Path, out: Path, **quantize: Any) -> float:
    few = {"iterations": 0, "settling": 0, "group_iterations": 0}
    folder, artifact, reference = calibrate(tiny_recipe(tiny_model, out, quantize=quantize, calibrate=few), QUIET)
    assert len(Artifact.load(folder).sites) == len(artifact.sites)
    return float(psnr(reference.simulation_latents[-1], reference.fp32_latents[-1]).median())


def test_activations_of_16_bits_lose_less_than_those_of_8(tiny_model: Path, tmp_path: Path) -> None:
    narrow, wide = (
        decibels(tiny_model, tmp_path / str(bits), activation_bits=bits, attention="int8") for bits in (8, 16)
    )
    assert wide > narrow + 2
    fitted = decibels(tiny_model, tmp_path / "fitted", activation_bits=16, attention="int8", outputs="fitted")
    assert fitted > narrow + 2  # outputs of 16 bits cost next to nothing


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
    """The artifact differs from one whose results are left in float, and from what was measured before the fit."""
    quick = {"group_iterations": 0, "iterations": 0, "settling": 0}
    made = {
        warmup: pipeline.calibrated(
            tiny_recipe(
                tiny_model, tmp_path, quantize={"attention": "int8", "outputs": "fitted"},
                calibrate={**quick, "warmup": warmup},
            ),
            QUIET,
            tmp_path / "work",
        ).artifact
        for warmup in (0, 6)
    }  # fmt: skip
    artifact, before = made[6], made[0]
    results = [i for i, site in enumerate(artifact.sites) if site.is_result]
    assert [artifact.sites[i].name for i in results[:1]] == ["conv_in:output"]
    assert len(results) == len(artifact.layers) + sum(site.operand in ("q", "probs") for site in artifact.sites)
    assert torch.equal(artifact.scale, fp16_exact(artifact.scale))
    learned = (artifact.scale[:, results] != before.scale[:, results]).any(0)
    assert float(learned.float().mean()) > 0.9
    simulated = SimulatedNetwork(artifact)
    with torch.no_grad():
        x = simulated(noise(2), torch.tensor([600.0, 30.0]), class_labels=torch.tensor([2, 7]))[0]
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
