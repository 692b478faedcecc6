"""Integers of weights fill the type that holds them, and stand for the artifact's weights exactly."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dq_toolchain.backends.qnn.graph.weights import SMALL, weight_forms
from dq_toolchain.toolchain.formats.artifact import Artifact
from tests.backends.qnn.conftest import artifact_of


def of_bits(artifact: Artifact, bits: int) -> Artifact:
    """The same with other weights of so many bits."""
    low = -(1 << (bits - 1))
    layers = {name: replace(held, weight_q=(held.weight_q.int() % (1 << bits) + low).to(torch.int8))
              for name, held in artifact.layers.items()}  # fmt: skip
    sites = tuple(replace(site, weight_bits=bits) if site.weight_bits else site for site in artifact.sites)
    return replace(artifact, layers=layers, sites=sites)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
def test_they_are_the_same_weights_and_fill_their_type(bits: int) -> None:
    artifact = of_bits(artifact_of("a16-w4")[0], bits)
    forms = weight_forms(artifact)
    assert set(forms) == set(artifact.layers)
    for name, held in artifact.layers.items():
        form, site = forms[name], artifact.sites[artifact.site_index(name)]
        own, width = site.weight_bits or 8, {"INT4": 4, "INT8": 8}[form.dtype]
        integers = form.integers(held)
        assert integers.dtype == torch.int8
        assert form.factor == 2 ** (width - own)
        assert -(2 ** (width - 1)) <= int(integers.min()) <= int(integers.max()) < 2 ** (width - 1)
        shape = (-1, *[1] * (held.weight_q.dim() - 1))
        assert torch.equal(integers.float() * form.scale(held).view(shape), held.dequantized())


def test_small_layers_have_eight_bits_and_cost_little() -> None:
    artifact, _ = artifact_of("a16-w4")
    forms = weight_forms(artifact)
    sizes = {name: held.weight_q.numel() for name, held in artifact.layers.items()}
    narrow = [name for name, form in forms.items() if form.dtype == "INT4"]
    wide = [name for name in forms if name not in narrow and len(artifact.layers[name].weight_scale) > 1]
    assert wide
    assert max(sizes[name] for name in wide) <= min(sizes[name] for name in narrow)
    assert sum(sizes[name] for name in wide) <= SMALL * sum(sizes.values())


def test_eight_bit_activations_drop_nothing() -> None:
    artifact, _ = artifact_of("a16-w4")
    plain = replace(artifact, sites=tuple(replace(site, bits=8) for site in artifact.sites))
    forms = weight_forms(plain)
    assert {form.factor for form in forms.values()} == {1}
    assert {forms[name].dtype for name, held in plain.layers.items() if len(held.weight_scale) > 1} == {"INT4"}
