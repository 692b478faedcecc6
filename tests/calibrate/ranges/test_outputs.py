"""Ranges of outputs are the ends of what the finished artifact's own rollouts give, and of nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dq_toolchain.calibrate.data.context import ACTIVATION_LIMIT, Context
from dq_toolchain.calibrate.finalize import finalize
from dq_toolchain.calibrate.ranges import outputs
from dq_toolchain.calibrate.ranges.outputs import measure_outputs
from dq_toolchain.calibrate.ranges.quantized import quantize_with
from dq_toolchain.calibrate.work.workers import Workers
from dq_toolchain.toolchain.errors import CalibrationError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.output_ranges import names_of
from dq_toolchain.toolchain.quant.sites import attention_layers
from dq_toolchain.toolchain.sampler.denoiser import Denoiser
from dq_toolchain.toolchain.sampler.rollout import rollout
from dq_toolchain.toolchain.simulation.network import SimulatedLayer, SimulatedNetwork
from tests.calibrate.conftest import measured, streamed_elsewhere, with_room
from tests.tiny_artifacts import corrected, with_result_sites

SAMPLES = 3


@pytest.fixture(scope="module")
def made(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Context]:
    few, quantize = {"samples": SAMPLES, "rounding": "nearest"}, {"attention": "int8", "activation_bits": 16}
    ready = measured(tiny_model, tmp_path_factory.mktemp("outputs"), calibrate=few, quantize=quantize)
    network = quantize_with(ready.context, ready.scale, ready.zero_point, ready.recipe)
    return corrected(finalize(network, ready.context, {})), ready.context


@torch.no_grad()
def seen(artifact: Artifact, context: Context) -> dict[str, list[list[Tensor]]]:
    """Every result of every product, by name and step group."""
    found: dict[str, list[list[Tensor]]] = {}
    simulated = SimulatedNetwork(artifact)

    def note(name: str, out: Tensor) -> None:
        groups = found.setdefault(name, [[] for _ in artifact.step_groups])
        groups[simulated.switch.current].append(out.flatten())

    for name, module in simulated.inner.named_modules():
        if isinstance(module, SimulatedLayer):
            module.register_forward_hook(lambda _m, _i, out, name=name: note(f"{name}:output", out))
    for name, attention in attention_layers(simulated.inner):
        processor: Any = attention.processor
        own = processor.product

        def product(*given: Any, name: str = name, own: Callable[..., Tensor] = own) -> Tensor:
            out = own(*given)
            note(f"{name}:{given[1]}", out)
            return out

        attention.set_processor(type(processor)(product))
    samples = context.samples
    network = Denoiser(simulated, artifact.table, samples.conditioning, artifact.guidance, simulated.set_step)
    rollout(artifact.table, network, samples.start)
    return found


def test_ends_are_those_of_all_that_the_products_give(made: tuple[Artifact, Context]) -> None:
    artifact, context = made
    calls = [0]

    def advance(count: int = 1) -> None:
        calls[0] += count

    ranges, everything = measure_outputs(artifact, context, advance), seen(artifact, context)
    assert calls[0] == artifact.table.calls
    assert set(everything) == set(ranges.names) == set(names_of(artifact.sites))
    products = 2 * len(list(attention_layers(context.network)))
    assert len(ranges.names) == len(artifact.layers) + products > len(artifact.layers)
    for column, name in enumerate(ranges.names):
        for group, parts in enumerate(everything[name]):
            values = torch.cat(parts)
            ends = torch.stack([ranges.low[group, column], ranges.high[group, column]])
            assert torch.equal(ends, torch.stack([values.min(), values.max()])), name
    assert not torch.equal(ranges.low[0], ranges.low[1])  # of each step group its own


def test_the_correction_of_the_sampler_is_in_force(made: tuple[Artifact, Context]) -> None:
    artifact, context = made
    bare = replace(artifact, table=artifact.table.uncorrected)
    assert not torch.equal(measure_outputs(bare, context).low, measure_outputs(artifact, context).low)


def test_several_processes_find_the_ends_of_all_their_samples(
    made: tuple[Artifact, Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each measures its share, and hands over numbers of which the largest count."""
    artifact, context = made
    given: list[Tensor] = []

    def largest(_self: Workers, x: Tensor) -> Tensor:
        given.append(x)
        return x

    monkeypatch.setattr(Workers, "largest", largest)
    parts = [replace(context, samples=context.samples.select(slice(i, i + 1))) for i in range(SAMPLES)]
    own = [measure_outputs(artifact, part) for part in parts]
    monkeypatch.setattr(Workers, "largest", lambda _self, _x: torch.stack(given).amax(0))
    merged = measure_outputs(artifact, parts[0])
    assert torch.equal(merged.low, torch.stack([one.low for one in own]).amin(0))
    assert torch.equal(merged.high, torch.stack([one.high for one in own]).amax(0))
    assert not torch.equal(merged.low, own[0].low)


def test_where_weights_are_streamed_batches_are_the_hosts(made: tuple[Artifact, Context], simulated: list[int]) -> None:
    artifact, context = made
    few = replace(with_room(context, 1), room=ACTIVATION_LIMIT)
    streamed = streamed_elsewhere(replace(few, room=SAMPLES * ACTIVATION_LIMIT))
    found = [measure_outputs(artifact, each) for each in (few, streamed)]
    assert set(simulated) == {1}
    assert torch.equal(found[0].low, found[1].low)
    assert torch.equal(found[0].high, found[1].high)


def test_what_is_not_finite_is_named(made: tuple[Artifact, Context]) -> None:
    artifact, context = made
    bias = {"conv_out.bias": torch.full_like(artifact.float_parameters["conv_out.bias"], float("inf"))}
    spoilt = replace(artifact, float_parameters={**artifact.float_parameters, **bias})
    with pytest.raises(CalibrationError, match=r"NaN or infinity at .*:output; check"):
        measure_outputs(spoilt, context)


def test_results_that_are_sites_are_measured_as_they_are_passed_on(made: tuple[Artifact, Context]) -> None:
    artifact, context = made
    step = 0.25
    ranges = measure_outputs(with_result_sites(artifact, step), context)
    assert torch.equal(ranges.low / step, (ranges.low / step).round())


def test_no_hook_is_left_behind(made: tuple[Artifact, Context]) -> None:
    simulated = SimulatedNetwork(made[0])
    with outputs._watched(simulated, lambda *_: None):
        pass
    assert not any(module._forward_hooks for module in simulated.modules())
