"""The figures of an artifact: zero where they must be, equal to what is computed by hand, whatever the batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dq_toolchain.calibrate.compare import evaluate as module
from dq_toolchain.calibrate.compare.evaluate import StepErrors, calls_of, evaluate, pictures_of
from dq_toolchain.calibrate.compare.held_out import HeldOut
from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.data.rollouts import rollouts_of
from dq_toolchain.calibrate.data.samples import Samples
from dq_toolchain.toolchain.errors import CalibrationError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.sampler.conditioning import Conditioning
from dq_toolchain.toolchain.sampler.correction import Correction
from dq_toolchain.toolchain.sampler.denoiser import Denoiser
from dq_toolchain.toolchain.sampler.rollout import rollout
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork
from tests.calibrate.conftest import context_of, streamed_elsewhere, with_room
from tests.tiny import labels, noise
from tests.tiny_artifacts import tiny_artifact

CPU = torch.device("cpu")
SEEDS = 5


def held_out_of(unet: nn.Module, artifact: Artifact) -> HeldOut:
    """Rollouts of a network in the place of FP32."""
    samples = Samples(noise(SEEDS), Conditioning(labels(SEEDS).cond), None)
    set_step = unet.set_step if isinstance(unet, SimulatedNetwork) else None
    found = rollouts_of(
        unet, artifact.table.uncorrected, samples, guidance=1.0, batch=64, device=CPU, set_step=set_step
    )
    return HeldOut(samples, found.latents, found.outputs, Path("held-out.safetensors"))


@pytest.fixture(scope="module")
def context() -> Context:
    """Of a calibration with the case's sampler."""
    artifact, unet = tiny_artifact()
    return context_of(unet, artifact.table, Samples(noise(SEEDS), Conditioning(labels(SEEDS).cond), None))


@pytest.fixture(scope="module")
def case() -> tuple[Artifact, HeldOut]:
    artifact, unet = tiny_artifact(weight_bits=4)
    return artifact, held_out_of(unet, artifact)


def own_run(artifact: Artifact, held: HeldOut) -> tuple[Tensor, list[Tensor]]:
    """Latents and outputs of the simulation, all samples in one batch."""
    network = SimulatedNetwork(artifact)
    denoiser = Denoiser(network, artifact.table, held.samples.conditioning, 1.0, network.set_step)
    outputs: list[Tensor] = []
    with torch.no_grad():
        return rollout(artifact.table, denoiser, held.samples.start, on_step=lambda k, x, f: outputs.append(f)), outputs


def test_an_artifact_has_no_error_against_itself(context: Context) -> None:
    artifact, _ = tiny_artifact()
    found = evaluate(artifact, held_out_of(SimulatedNetwork(artifact), artifact), context)
    zero = (0.0,) * artifact.table.calls
    assert found.free_running == found.teacher_forced == StepErrors(zero, zero, zero)
    assert found.figures["psnr_median"] == pytest.approx(100)
    assert found.figures["psnr_pooled"] == pytest.approx(100)
    assert found.figures["ssim_mean"] == pytest.approx(1)
    assert found.figures["error_final"] == 0


def test_figures_are_those_computed_by_hand(case: tuple[Artifact, HeldOut], context: Context) -> None:
    artifact, held = case
    found = evaluate(artifact, held, context)
    latents, _ = own_run(artifact, held)
    for k in range(artifact.table.calls):
        errors = sorted(
            float((latents[k + 1, s] - held.latents[k + 1, s]).norm() / held.latents[k + 1, s].norm())
            for s in range(SEEDS)
        )
        assert found.free_running.median[k] == pytest.approx(errors[2], rel=1e-5)
        assert found.free_running.lower[k] == pytest.approx(errors[1], rel=1e-5)
        assert found.free_running.upper[k] == pytest.approx(errors[3], rel=1e-5)
    assert torch.equal(found.samples, latents[-1])
    mse = ((latents[-1].clamp(-1, 1) - held.final.clamp(-1, 1)) / 2).double().square().flatten(1).mean(1)
    values = -10 * mse.log10()
    assert found.figures["psnr_median"] == pytest.approx(float(values.quantile(0.5)), rel=1e-5)
    assert found.figures["psnr_mean"] == pytest.approx(float(values.mean()), rel=1e-5)
    assert found.figures["psnr_pooled"] == pytest.approx(float(-10 * mse.mean().log10()), rel=1e-5)
    assert found.figures["psnr_p10"] <= found.figures["psnr_median"]


def test_at_the_first_step_both_runs_are_fed_the_same(case: tuple[Artifact, HeldOut], context: Context) -> None:
    artifact, held = case
    _, outputs = own_run(artifact, held)
    errors = (outputs[0] - held.outputs[0]).flatten(1).norm(dim=1) / held.outputs[0].flatten(1).norm(dim=1)
    assert evaluate(artifact, held, context).teacher_forced.median[0] == pytest.approx(float(errors.median()), rel=1e-5)


def test_the_batch_changes_nothing_but_rounding(
    case: tuple[Artifact, HeldOut], context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact, held = case
    whole = evaluate(artifact, held, context)
    monkeypatch.setattr(module, "BATCH", 2)
    moved = [0]

    def advance(n: int = 1) -> None:
        moved[0] += n

    parts = evaluate(artifact, held, context, advance)
    assert moved[0] == calls_of(held) == artifact.table.calls * (3 + 1)
    assert parts.figures["psnr_median"] == pytest.approx(whole.figures["psnr_median"], abs=0.5)
    assert parts.samples.shape == whole.samples.shape


def test_no_more_samples_run_at_once_than_have_room(
    case: tuple[Artifact, HeldOut], context: Context, simulated: list[int]
) -> None:
    artifact, held = case
    whole = evaluate(artifact, held, context)
    assert max(simulated) == SEEDS
    simulated.clear()
    few = evaluate(artifact, held, with_room(context, 2))
    assert max(simulated) == 2
    assert torch.equal(few.samples, whole.samples)
    assert few.figures == whole.figures
    assert few.teacher_forced == whole.teacher_forced


def test_where_weights_are_streamed_the_simulation_runs_on_the_host(
    case: tuple[Artifact, HeldOut], context: Context
) -> None:
    artifact, held = case
    found, plain = evaluate(artifact, held, streamed_elsewhere(context)), evaluate(artifact, held, context)
    assert torch.equal(found.samples, plain.samples)
    assert (found.figures, found.teacher_forced) == (plain.figures, plain.teacher_forced)


def test_the_tables_correction_is_applied(case: tuple[Artifact, HeldOut], context: Context) -> None:
    artifact, held = case
    nothing = Correction.identity(artifact.table.calls, 1)
    doubled = replace(nothing, output_scale=((2.0,),) * artifact.table.calls)
    plain = evaluate(artifact, held, context)
    same = evaluate(replace(artifact, table=replace(artifact.table, correction=nothing)), held, context)
    wrong = evaluate(replace(artifact, table=replace(artifact.table, correction=doubled)), held, context)
    assert same.figures == plain.figures
    assert all(error > 0.8 for error in wrong.teacher_forced.median)


def test_what_cannot_be_compared_is_refused(case: tuple[Artifact, HeldOut], context: Context) -> None:
    artifact, held = case
    with pytest.raises(CalibrationError, match="makes 3 network calls and FP32 4"):
        evaluate(tiny_artifact(steps=3)[0], held, context)
    name = next(iter(artifact.float_parameters))
    broken = {**artifact.float_parameters, name: artifact.float_parameters[name] * float("nan")}
    with pytest.raises(CalibrationError, match="not finite from step 0 on, for 5 of 5"):
        evaluate(replace(artifact, float_parameters=broken), held, context)


def test_pictures_are_the_first_few_as_pixels() -> None:
    samples = torch.linspace(-1.5, 1.5, 20).view(20, 1, 1, 1).expand(20, 1, 4, 4)
    pixels = pictures_of(samples, samples)
    assert (pixels.dtype, tuple(pixels.shape)) == (torch.uint8, (16, 1, 4, 4))
    assert int(pixels.min()) == 0
