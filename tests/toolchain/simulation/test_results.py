"""Results of products that are sites: the simulation gives nothing but what their integers stand for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.quant.attention import PRODUCT_OPERANDS
from dq_toolchain.toolchain.quant.sites import attention_layers
from dq_toolchain.toolchain.simulation.network import Mode, SimulatedLayer, SimulatedNetwork
from tests.tiny import noise
from tests.tiny_artifacts import tiny_artifact, with_result_sites, with_wide_activations

TIME, LABEL = torch.tensor([600.0, 30.0]), torch.tensor([2, 7])


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("mode", ["integer", "fake_quantize"])
@torch.no_grad()
def test_every_result_is_an_integer_times_its_scale(mode: Mode, wide: bool) -> None:
    artifact = with_result_sites(tiny_artifact(attention=True)[0])
    artifact = with_wide_activations(artifact) if wide else artifact
    simulated, plain = SimulatedNetwork(artifact, mode), SimulatedNetwork(artifact, mode)
    results = {site.name: i for i, site in enumerate(artifact.sites) if site.is_result}
    checked: set[str] = set()

    def check(name: str, out: Tensor, before: Tensor) -> None:
        scale, bits = artifact.scale[0, results[name]], artifact.sites[results[name]].bits
        q = torch.round(before / scale).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        assert torch.equal(out, q * scale), name
        assert torch.equal(recorded[name], q)
        checked.add(name)

    twins = dict(plain.named_modules())
    for name, module in simulated.named_modules():
        if isinstance(module, SimulatedLayer):
            twin: Any = twins[name]
            module.register_forward_hook(
                lambda _m, inputs, out, name=name, twin=twin: check(
                    f"{name.removeprefix('inner.')}:output", out, twin.float_output(*inputs)
                )
            )
    for name, attention in attention_layers(simulated.inner):
        processor: Any = attention.processor
        own, bare = processor.product, SimulatedNetwork(without_results(artifact), mode)
        twin_attention: Any = dict(attention_layers(bare.inner))[name]

        def product(
            attention: Any,
            which: str,
            left: Tensor,
            right: Tensor,
            own: Any = own,
            twin: Any = twin_attention,
            name: str = name,
        ) -> Tensor:
            out: Tensor = own(attention, which, left, right)
            check(f"{name}:{which}", out, twin.processor.product(twin, which, left, right))
            return out

        attention.set_processor(type(processor)(product))
    with simulated.recording() as recorded:
        simulated(noise(2), TIME, class_labels=LABEL)
    assert checked == set(results)
    assert len(checked) > len(artifact.layers) + len(PRODUCT_OPERANDS) - 1


def without_results(artifact: Artifact) -> Artifact:
    """The artifact before ``with_result_sites``."""
    kept = [i for i, site in enumerate(artifact.sites) if not site.is_result]
    return replace(
        artifact,
        sites=tuple(artifact.sites[i] for i in kept),
        scale=artifact.scale[:, kept],
        zero_point=artifact.zero_point[:, kept],
    )
