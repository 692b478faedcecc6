"""Results of products that a runtime keeps in integers: the simulation gives nothing but what these stand for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.output_ranges import OutputRanges, names_of
from dq_toolchain.toolchain.quant.attention import PRODUCT_OPERANDS
from dq_toolchain.toolchain.quant.qparams import activation_type, range_to_qparams
from dq_toolchain.toolchain.quant.sites import attention_layers
from dq_toolchain.toolchain.simulation.network import Mode, SimulatedLayer, SimulatedNetwork
from tests.tiny import noise
from tests.tiny_artifacts import tiny_artifact, with_result_sites, with_wide_activations

TIME, LABEL = torch.tensor([600.0, 30.0]), torch.tensor([2, 7])


def with_ranges(artifact: Artifact) -> Artifact:
    """Ranges of results that some of these go beyond, other ones per step group."""
    names = names_of(artifact.sites)
    low = -torch.linspace(0.02, 0.4, len(names)).expand(len(artifact.step_groups), -1)
    return replace(artifact, output_ranges=OutputRanges(names, low.contiguous(), -2 * low))


CASES: dict[str, Callable[[Artifact], Artifact]] = {
    "sites, 8 bits": with_result_sites,
    "sites, 16 bits": lambda artifact: with_wide_activations(with_result_sites(artifact)),
    "ranges, 16 bits": lambda artifact: with_wide_activations(with_ranges(artifact)),
}


def numbers_of(artifact: Artifact) -> dict[str, tuple[Tensor, Tensor, int]]:
    """scale, zero_point and bits of every result in the first step group."""
    if artifact.output_ranges is None:
        return {
            site.name: (artifact.scale[0, i], artifact.zero_point[0, i], site.bits)
            for i, site in enumerate(artifact.sites)
            if site.is_result
        }
    ranges = artifact.output_ranges
    scale, zero_point = range_to_qparams(2 * ranges.low, 2 * ranges.high, activation_type(16), "affine")
    return {name: (scale[0, i], zero_point[0, i], 16) for i, name in enumerate(ranges.names)}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mode", ["integer", "fake_quantize"])
@torch.no_grad()
def test_every_result_is_an_integer_times_its_scale(mode: Mode, case: str) -> None:
    artifact = CASES[case](tiny_artifact(attention=True)[0])
    simulated, plain = SimulatedNetwork(artifact, mode), SimulatedNetwork(artifact, mode)
    results = numbers_of(artifact)
    checked: set[str] = set()

    def check(name: str, out: Tensor, before: Tensor) -> None:
        scale, zero_point, bits = results[name]
        q = (torch.round(before / scale) + zero_point).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        assert torch.equal(out, (q - zero_point) * scale), name
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


def test_ranges_of_results_change_nothing_at_8_bits() -> None:
    artifact = tiny_artifact(attention=True)[0]
    bare, ranged = SimulatedNetwork(artifact), SimulatedNetwork(with_ranges(artifact))
    with torch.no_grad():
        outputs = [network(noise(2), TIME, class_labels=LABEL)[0] for network in (bare, ranged)]
    assert torch.equal(*outputs)


def without_results(artifact: Artifact) -> Artifact:
    """The artifact with its results in float."""
    kept = [i for i, site in enumerate(artifact.sites) if not site.is_result]
    return replace(
        artifact,
        sites=tuple(artifact.sites[i] for i in kept),
        scale=artifact.scale[:, kept],
        zero_point=artifact.zero_point[:, kept],
        output_ranges=None,
    )
