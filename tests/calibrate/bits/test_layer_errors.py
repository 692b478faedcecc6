"""Shares of the error at the sampler's end, against errors that are measured layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dq_toolchain.calibrate.bits.layer_errors import Shares, measure_shares
from dq_toolchain.calibrate.data.rollouts import rollouts_of
from dq_toolchain.calibrate.finalize import finalize
from dq_toolchain.calibrate.ranges.quantized import quantize_with
from dq_toolchain.calibrate.work.checkpoint import CheckpointFile
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.quant.qparams import activation_type
from dq_toolchain.toolchain.simulation.network import ActivationTable, StepGroupSwitch
from tests.calibrate.conftest import Measured, measured

RUNS = 32
LAYERS = (
    "conv_in",
    "down_blocks.0.resnets.0.conv1",
    "mid_block.resnets.0.conv2",
    "conv_out",
    "time_embedding.linear_2",
)


def _made(model: Path, out: Path, **quantize: Any) -> tuple[Measured, Artifact]:
    """A calibration without a fit."""
    got = measured(model, out, quantize=quantize, calibrate={"samples": RUNS, "rounding": "nearest"})
    network = quantize_with(got.context, got.scale, got.zero_point, got.recipe)
    return got, finalize(network, got.context, {})


def _shares(got: Measured, artifact: Artifact, runs: int = RUNS) -> Shares:
    checkpoint = CheckpointFile(got.recipe.run.out / "none.safetensors", "", writes=False)
    return measure_shares(artifact, got.context, got.context.samples.select(slice(0, runs)), checkpoint)


@contextmanager
def _one_source(got: Measured, artifact: Artifact, layer: str, kind: str, switch: StepGroupSwitch) -> Iterator[None]:
    """The FP32 network with one layer's weights, or one layer's inputs, as the artifact has them."""
    module = got.context.network.get_submodule(layer)
    if kind == "weights":
        weight = module.get_parameter("weight")
        kept = weight.detach().clone()
        weight.data.copy_(artifact.layers[layer].dequantized())
        yield
        weight.data.copy_(kept)
        return
    i = artifact.site_index(layer)
    table = ActivationTable(
        layer, artifact.scale[:, i], artifact.zero_point[:, i], activation_type(artifact.sites[i].bits), switch
    )
    handle = module.register_forward_pre_hook(lambda _module, args: (table.fake(args[0]), *args[1:]))
    yield
    handle.remove()


def _power(got: Measured, artifact: Artifact, layer: str, kind: str) -> Tensor:
    """(M,) squared error of every sample's final latent with that source alone."""
    context, switch = got.context, StepGroupSwitch()

    def set_step(k: int) -> None:
        switch.current = artifact.group_of_step[k]

    with _one_source(got, artifact, layer, kind, switch), torch.no_grad():
        final = rollouts_of(
            context.network, context.table, context.samples, guidance=context.guidance, batch=RUNS,
            device=context.device, set_step=set_step,
        ).latents[-1]  # fmt: skip
    return (final - got.trajectories.targets.latents[-1]).flatten(1).double().square().sum(1)


def test_shares_are_as_the_errors_that_each_source_makes_alone(tiny_model: Path, tmp_path: Path) -> None:
    """Against each other, within a factor of two (32 runs: a quarter is one standard deviation)."""
    got, artifact = _made(tiny_model, tmp_path)
    shares = _shares(got, artifact)
    sources = [(layer, kind) for layer in LAYERS for kind in ("weights", "activations")]
    powers = torch.stack([_power(got, artifact, *source) for source in sources])
    measured_shares = (powers / powers.sum(0)).mean(1)
    predicted = torch.tensor([getattr(shares, kind)[layer] for layer, kind in sources], dtype=torch.float64)
    predicted /= predicted.sum()
    for source, want, have in zip(sources, measured_shares.tolist(), predicted.tolist(), strict=True):
        assert want / 2 < have < want * 2, source
    assert measured_shares.max() > 10 * measured_shares.min()  # they differ, so that this says something


def _about(network: nn.Module) -> list[Any]:
    """What taps put into modules: hooks and processors."""
    return [
        (len(module._forward_hooks), len(module._forward_pre_hooks), getattr(module, "processor", None))
        for module in network.modules()
    ]


@pytest.mark.parametrize(
    "quantize", [{}, {"attention": "int8"}, {"outputs": "fitted"}, {"step_vectors": True}, {"scheme": "affine"}]
)
def test_all_sites_have_a_share_and_the_network_is_left_as_it_was(
    quantize: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    got, artifact = _made(tiny_model, tmp_path, **quantize)
    network = got.context.network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    about = _about(network)
    shares = _shares(got, artifact, runs=3)
    assert sum(shares.weights.values()) + sum(shares.activations.values()) == pytest.approx(1)
    assert set(shares.weights) == set(artifact.layers)
    assert set(shares.activations) == {site.layer for site in artifact.sites}
    assert min(shares.activations.values()) > 0
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert _about(network) == about
    assert not any(p.requires_grad or p.grad is not None or p._post_accumulate_grad_hooks for p in network.parameters())


def test_results_that_are_sites_count_as_activations(tiny_model: Path, tmp_path: Path) -> None:
    without, with_results = (
        sum(_shares(*_made(tiny_model, tmp_path / outputs, outputs=outputs)).activations.values())
        for outputs in ("none", "fitted")
    )
    assert with_results > without


def test_multiplications_are_those_of_the_layers(tiny_model: Path, tmp_path: Path) -> None:
    got, artifact = _made(tiny_model, tmp_path)
    counted = _shares(got, artifact, runs=1).multiplications
    config = got.context.model.config
    weight = got.context.network.get_parameter("conv_in.weight")
    assert counted["conv_in"] == weight.numel() * config["sample_size"] ** 2
    assert (
        counted["time_embedding.linear_1"]
        == got.context.network.get_parameter("time_embedding.linear_1.weight").numel()
    )
