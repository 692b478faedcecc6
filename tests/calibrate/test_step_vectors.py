"""Calibration with step vectors: time layers have no sites, and the artifact says what every step is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dq_toolchain.calibrate.methods import resolve
from dq_toolchain.calibrate.prepare.identity import of_rollouts
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.calibrate.ranges.quantized import quantize_with
from dq_toolchain.calibrate.run import calibrate
from dq_toolchain.toolchain.errors import ArtifactError, RecipeError
from dq_toolchain.toolchain.formats.artifact import Artifact, load_reference
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.metrics import relative_error
from dq_toolchain.toolchain.quant.step_vectors import StepVectors, find_step_vectors, take_timesteps
from dq_toolchain.toolchain.quant.time_path import find_time_path
from dq_toolchain.toolchain.sampler.denoiser import Denoiser, outputs_at
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork
from tests.calibrate.conftest import QUIET, measured, tiny_recipe
from tests.tiny import noise, write_tiny_model
from tests.toolchain.quant.test_step_vectors import unconditional


def step_vectors_at(artifact: Artifact, reference: Reference, timesteps: Sequence[float]) -> StepVectors:
    """The artifact's step vectors at other timesteps: what led to its rows is in it, and is done again for each."""
    given = artifact.step_vectors
    assert given is not None

    def run(network: torch.nn.Module) -> Tensor:
        return Denoiser(network, artifact.table, reference.conditioning, artifact.guidance)(reference.start, 0)

    path = find_time_path(artifact.build_with_timestep(), run)
    assert path.vectors == given.vectors
    return replace(given, timesteps=torch.tensor(timesteps, dtype=torch.float32), rows=path.rows(timesteps))


@pytest.fixture(scope="module", params=["classes", "time alone"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Artifact, Reference]:
    folder = tmp_path_factory.mktemp("model")
    unet = None if request.param == "classes" else unconditional()
    recipe = tiny_recipe(write_tiny_model(folder, unet), folder / "out", quantize={"step_vectors": True})
    return calibrate(recipe, QUIET)


def test_time_layers_have_no_site_and_are_listed_with_the_reason(made: tuple[Path, Artifact, Reference]) -> None:
    _, artifact, _ = made
    assert artifact.step_vectors is not None
    assert not any("time_embedding" in site.layer for site in artifact.sites)
    listed = {op.layer for op in artifact.float_operations if "row of a table" in op.reason}
    assert listed == {vector.name for vector in artifact.step_vectors.vectors}
    assert {f"{name}.weight" for name in artifact.layers}.isdisjoint(artifact.float_parameters)


def test_artifact_on_disk_is_the_same_simulation(made: tuple[Path, Artifact, Reference]) -> None:
    folder, _, reference = made
    artifact = Artifact.load(folder)
    network = SimulatedNetwork(artifact)
    denoiser = Denoiser(network, artifact.table, reference.conditioning, artifact.guidance, network.set_step)
    with torch.no_grad():
        outputs = outputs_at(denoiser, reference.simulation_latents)
    assert torch.equal(outputs, reference.simulation_outputs)
    error = relative_error(reference.simulation_latents[-1], reference.fp32_latents[-1])
    assert error.max() < 0.2


def test_rows_follow_for_other_timesteps(made: tuple[Path, Artifact, Reference]) -> None:
    folder, _, reference = made
    artifact = Artifact.load(folder)
    given = artifact.step_vectors
    assert given is not None
    again = step_vectors_at(artifact, reference, artifact.table.timesteps)
    torch.testing.assert_close(again.rows, given.rows, rtol=1e-6, atol=1e-6)
    others = step_vectors_at(artifact, reference, [981.0, 500.5])
    assert others.rows.shape == (2, given.width)
    network = artifact.build_with_timestep()

    def run(each: torch.nn.Module) -> Tensor:
        return Denoiser(each, artifact.table, reference.conditioning, artifact.guidance)(reference.start, 0)

    rewritten, _ = find_step_vectors(network, [981.0, 500.5], run)  # proves that the function is the same there
    torch.testing.assert_close(others.rows, rewritten.rows, rtol=1e-6, atol=1e-6)


def test_rows_of_other_timesteps_than_the_samplers_are_refused(
    made: tuple[Path, Artifact, Reference], tmp_path: Path
) -> None:
    _, artifact, reference = made
    changed = replace(artifact, step_vectors=step_vectors_at(artifact, reference, [900.0, 600.0, 300.0, 1.0]))
    changed.save(tmp_path / "changed", reference)
    with pytest.raises(ArtifactError, match="step vectors are not those of the sampler's timesteps"):
        Artifact.load(tmp_path / "changed")


def test_every_further_sampling_has_rows_and_rollouts_of_its_own(tiny_model: Path, tmp_path: Path) -> None:
    """They decide nothing about the fit, and each simulation on disk is the one whose rollouts are there."""
    plain = tiny_recipe(tiny_model, tmp_path / "plain", quantize={"step_vectors": True})
    settings: dict[str, Any] = {"reference": {"seeds": 2, "more_steps": [2, 7]}, "quantize": {"step_vectors": True}}
    recipe = tiny_recipe(tiny_model, tmp_path / "more", **settings)
    of_plain, of_more = setup(plain), setup(recipe)
    assert of_rollouts(of_plain) == of_rollouts(of_more)
    folder, made, _ = calibrate(recipe, QUIET)
    artifact = Artifact.load(folder)
    assert artifact.step_vectors is not None
    assert artifact.step_rows is not None
    assert torch.equal(artifact.step_vectors.rows[: artifact.table.calls], artifact.step_rows)
    assert [each.steps for each in made.samplings] == [2, 7]
    for sampling in artifact.samplings:
        other, reference = artifact.at(sampling), load_reference(folder, sampling)
        again = step_vectors_at(artifact, reference, sampling.table.timesteps)
        assert other.step_rows is not None
        torch.testing.assert_close(other.step_rows, again.rows, rtol=1e-6, atol=1e-6)
        network = SimulatedNetwork(other)
        denoiser = Denoiser(network, other.table, reference.conditioning, other.guidance, network.set_step)
        with torch.no_grad():
            outputs = outputs_at(denoiser, reference.simulation_latents)
        assert torch.equal(outputs, reference.simulation_outputs)
        assert relative_error(reference.simulation_latents[-1], reference.fp32_latents[-1]).max() < 0.2


@pytest.mark.parametrize("method", ["qdiffusion", "eda-dm"])
def test_blocks_are_reconstructed_with_the_rows_of_their_samples(tmp_path: Path, method: str) -> None:
    settings: dict[str, Any] = {
        "quantize": {"step_vectors": True},
        "calibrate": {"method": method},
        "blocks": {"rows": 16, "batch": 4, "iterations": 3, "activation_iterations": 2},
    }
    recipe = tiny_recipe(write_tiny_model(tmp_path / "model", unconditional()), tmp_path / "out", **settings)
    _, artifact, reference = calibrate(recipe, QUIET)
    assert relative_error(reference.simulation_latents[-1], reference.fp32_latents[-1]).max() < 0.2
    blocks = artifact.record["stages"]
    assert blocks


def test_a_block_by_itself_computes_with_the_rows_of_its_samples(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model", unconditional())
    made = measured(model, tmp_path / "out", quantize={"step_vectors": True})
    network = quantize_with(made.context, made.scale, made.zero_point, made.recipe)
    block = network.inner.get_submodule("mid_block.resnets.0")
    called: list[tuple[Any, ...]] = []
    times = torch.tensor(made.context.table.timesteps)[[0, 1]]  # two samples at two steps of one step group
    with torch.no_grad():
        handle = block.register_forward_hook(lambda _block, args, out: called.append((args, out)))
        network(noise(2), times)
        network(noise(2), times.flip(0))
        handle.remove()
        (args, out), (_, later) = called
        take_timesteps(network.inner, times)
        assert torch.equal(block(*args), out)
        take_timesteps(network.inner, times.flip(0))
        assert not torch.equal(block(*args), out)
    assert not torch.equal(later, out)


@pytest.mark.parametrize("method", ["tfmq", "stepbaq", "stepbaq+tac"])
def test_methods_that_work_on_time_are_refused(tiny_model: Path, tmp_path: Path, method: str) -> None:
    recipe = tiny_recipe(tiny_model, tmp_path, quantize={"step_vectors": True}, calibrate={"method": method})
    with pytest.raises(RecipeError, match="leave step_vectors out"):
        setup(recipe, resolve(method))


def test_an_artifact_without_step_vectors_says_nothing_of_them(tiny_model: Path, tmp_path: Path) -> None:
    folder, artifact, _ = calibrate(tiny_recipe(tiny_model, tmp_path / "out"), QUIET)
    assert "step_vectors" not in (folder / "calibration.json").read_text()
    assert not (folder / "step_vectors.safetensors").exists()
    assert artifact.step_vectors is None
