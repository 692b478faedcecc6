"""A whole calibration with streamed weights, from the host to the host, gives the artifact of one without."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel

from dq_toolchain.calibrate.bits import budget
from dq_toolchain.calibrate.network import streaming as network_streaming
from dq_toolchain.calibrate.network.streaming import Streaming
from dq_toolchain.calibrate.prepare import setup as module
from dq_toolchain.calibrate.run import calibrate
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.errors import CalibrationError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.recipe.loading import load_recipe
from tests.calibrate.conftest import tiny_recipe
from tests.calibrate.network.counting import CountingCopier, streaming
from tests.pretend_gpu import NAME
from tests.processes import run

REQUEST = """
[model]
path = "{model}"
[conditioning]
null_label = 10
[sampler]
steps = 3
[calibrate]
method = "qdiffusion"
samples = 4
[blocks]
rows = 8
batch = 4
iterations = 2
activation_iterations = 1
[reference]
seeds = 2
[run]
offload = true
"""
BUDGETED = {"weight_bits": 4, "budget": "size=0.2"}
"""Bits by the sensitivity of layers, which asks for gradients of FP32 weights."""


@pytest.mark.parametrize(
    ("method", "rounding", "quantize"),
    [
        ("accuquant", "closed-form", BUDGETED),
        ("accuquant", "learned", BUDGETED),
        pytest.param("tfmq", "learned", {"weight_bits": 4}, marks=pytest.mark.slow),
    ],
)
def test_streamed_weights_change_nothing(
    method: str,
    rounding: str,
    quantize: dict[str, object],
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(budget, "PROBES", 2)
    copiers: list[CountingCopier] = []

    def streamed(_device: torch.device) -> Streaming:
        engine, copier = streaming(hidden=(torch.float32,))
        copiers.append(copier)
        close = engine.close

        def closed() -> None:
            close()
            copier.show()

        monkeypatch.setattr(engine, "close", closed)
        return engine

    def made(folder: str) -> tuple[Artifact, Reference]:
        recipe = tiny_recipe(
            tiny_model,
            tmp_path / folder,
            run={"offload": True},
            quantize=quantize,
            calibrate={"method": method, "rounding": rounding},
            blocks={"rows": 8, "batch": 4, "iterations": 2, "activation_iterations": 1},
        )
        return calibrate(recipe, Reporter(quiet=True))[1:]

    artifact, reference = made("plain")
    monkeypatch.setattr(module, "streaming_on", streamed)
    other, others = made("streamed")
    (copier,) = copiers
    assert copier.most == 2
    assert not copier.resident
    assert copier.started.total() > 100
    if method == "accuquant":  # reconstruction takes other blocks in every phase of every unit
        assert copier.late < 0.5 * copier.started.total()
    assert other.sites == artifact.sites
    assert other.record["stages"] == artifact.record["stages"]
    assert torch.equal(other.scale, artifact.scale)
    for name, layer in artifact.layers.items():
        assert torch.equal(other.layers[name].weight_q, layer.weight_q), name
        assert torch.equal(other.layers[name].weight_scale, layer.weight_scale), name
    assert set(other.float_parameters) == set(artifact.float_parameters)
    assert all(torch.equal(other.float_parameters[name], value) for name, value in artifact.float_parameters.items())
    assert torch.equal(others.simulation_latents, reference.simulation_latents)
    assert torch.equal(others.fp32_latents, reference.fp32_latents)


def test_weights_that_do_not_fit_are_refused_with_what_helps(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_network: object, _device: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(UNet2DModel, "to", full)
    with pytest.raises(CalibrationError, match=r"weights, \d\.\d GiB, do not fit .*; add --offload, which keeps"):
        module.setup(tiny_recipe(tiny_model, tmp_path))


def test_a_network_without_blocks_is_not_streamed_and_that_is_said(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "streaming_on", lambda _device: streaming()[0])
    said: list[str] = []
    module.setup(tiny_recipe(tiny_model, tmp_path, run={"offload": True}), warn=said.append)
    assert not said
    monkeypatch.setattr(network_streaming, "outermost_blocks", lambda _network: [])
    module.setup(tiny_recipe(tiny_model, tmp_path, run={"offload": True}), warn=said.append)
    assert said == ["--offload finds no blocks of diffusers in this network: all of its weights are on the GPU"]


@pytest.mark.slow
def test_records_on_disk_serve_a_pretended_gpu(tiny_model: Path, tmp_path: Path) -> None:
    """Of ``--offload``, what runs there: records and lean networks. Its weights are not streamed, see ``tests.pretend_gpu``."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(REQUEST.format(model=tiny_model))
    command = ("calibrate", "--recipe", str(recipe), "--out", str(tmp_path / "gpu"))
    done = run("from tests.pretend_gpu import main; main()", *command)
    assert done.returncode == 0, done.stderr
    there = Artifact.load(tmp_path / "gpu/calibration")
    settings = load_recipe(recipe, {"run": {"out": tmp_path / "cpu", "device": "cpu"}})
    here = calibrate(settings, Reporter(quiet=True))[1]
    assert (there.record["device"], here.record["device"]) == (NAME, "cpu")
    assert float((there.scale / here.scale - 1).abs().max()) < 0.03
    for name, layer in here.layers.items():
        assert float((there.layers[name].weight_q != layer.weight_q).float().mean()) < 0.02, name
