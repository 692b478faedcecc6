"""The artifact is the fitted network in integers, and its reference is what FP32 and the simulation do on held-out seeds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dq_toolchain.calibrate.data.samples import held_out_seeds
from dq_toolchain.calibrate.finalize import finalize, held_out_reference
from dq_toolchain.calibrate.network.insert import QuantizedNetwork
from dq_toolchain.calibrate.ranges.quantized import quantize_with
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.quant.qparams import fp16_exact
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork
from tests.calibrate.conftest import Measured, measured
from tests.tiny import noise

SEEDS = 3


@pytest.fixture(scope="module")
def ready(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    few = {"samples": 3, "rounding": "nearest"}
    return measured(tiny_model, tmp_path_factory.mktemp("finalize"), quantize={"scheme": "affine"}, calibrate=few)


@pytest.fixture(scope="module")
def network(ready: Measured) -> QuantizedNetwork:
    return quantize_with(ready.context, ready.scale, ready.zero_point, ready.recipe)


@pytest.fixture(scope="module")
def artifact(ready: Measured, network: QuantizedNetwork) -> Artifact:
    return finalize(network, ready.context, {"said": "here"})


@torch.no_grad()
def test_the_artifact_computes_what_the_network_computes(
    ready: Measured, network: QuantizedNetwork, artifact: Artifact
) -> None:
    """A scale that went through its logarithm may round an activation otherwise: far less than quantization itself does."""
    simulated = SimulatedNetwork(artifact, "fake_quantize")
    x, label = noise(2), torch.tensor([1, 2])
    for k in range(artifact.table.calls):
        network.set_step(k)
        simulated.set_step(k)
        timestep = torch.full((2,), float(artifact.table.timesteps[k]))
        ours, theirs, exact = (
            net(x, timestep, class_labels=label, return_dict=False)[0]
            for net in (network, simulated, ready.context.network)
        )
        assert float((theirs - ours).norm()) < 0.2 * float((ours - exact).norm())


def test_what_devices_get_are_integers_and_scales_that_fp16_holds(artifact: Artifact) -> None:
    assert torch.equal(artifact.scale, fp16_exact(artifact.scale))
    assert artifact.scale.shape == artifact.zero_point.shape == (len(artifact.step_groups), len(artifact.sites))
    assert artifact.zero_point.dtype == torch.int32
    assert artifact.record == {"said": "here"}
    for site in artifact.sites:
        if site.weight_bits is not None:
            layer = artifact.layers[site.layer]
            assert layer.weight_q.dtype == torch.int8
            assert int(layer.weight_q.int().abs().max()) <= 2 ** (site.weight_bits - 1)
    assert not set(artifact.float_parameters) & {f"{name}.weight" for name in artifact.layers}


def reference_of(ready: Measured, artifact: Artifact, batch: int) -> Reference:
    context = ready.context
    held_out = context.draw(held_out_seeds(SEEDS))
    return held_out_reference(artifact, context.network, context.table, held_out, batch=batch)


def test_the_reference_holds_both_rollouts_and_fp32s_answers_on_the_simulations(
    ready: Measured, artifact: Artifact, tmp_path: Path
) -> None:
    found = reference_of(ready, artifact, SEEDS)
    calls = artifact.table.calls
    assert (found.seeds, found.calls) == (SEEDS, calls)
    for latents in (found.fp32_latents, found.simulation_latents):
        assert torch.equal(latents[0], found.start)
    assert not torch.equal(found.fp32_latents[-1], found.simulation_latents[-1])
    # at the first step both stand at the same latent, so that FP32's answer there leads to FP32's own second latent
    first = artifact.table.advance(0, [found.start], [found.fp32_outputs_at_simulation[0]], None)
    torch.testing.assert_close(first, found.fp32_latents[1], rtol=1e-5, atol=1e-5)
    artifact.save(tmp_path, found)  # which checks the shapes of all of them


def test_the_size_of_a_batch_decides_nothing(ready: Measured, artifact: Artifact) -> None:
    whole, single = reference_of(ready, artifact, SEEDS), reference_of(ready, artifact, 1)
    torch.testing.assert_close(single.fp32_latents, whole.fp32_latents, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        single.fp32_outputs_at_simulation[0], whole.fp32_outputs_at_simulation[0], rtol=1e-4, atol=1e-5
    )
