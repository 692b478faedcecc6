"""Where fp16 is too small: layers, sums, scores of attention and products in front of their powers of two are named."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from dq_toolchain.backends.common.fp16_range import (
    beyond_fp16,
    check_by_running,
    check_known,
    coarse_in_fp16,
    known_beyond_fp16,
    watched,
)
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.quant.sites import attention_layers
from tests import tiny, tiny_artifacts
from tests.toolchain.quant.test_step_vectors import CASES


@pytest.fixture(scope="module")
def plain() -> tuple[Artifact, Reference]:
    artifact, unet = tiny_artifacts.tiny_artifact(unet=tiny.with_small_weights(tiny.tiny_unet()))
    return artifact, tiny_artifacts.tiny_reference(artifact, unet)


def test_a_network_of_ordinary_values_and_small_weights_fits(plain: tuple[Artifact, Reference]) -> None:
    assert known_beyond_fp16(plain[0]) == {}
    assert beyond_fp16(*plain) == {}
    assert coarse_in_fp16(plain[0]) is None


def test_the_first_layer_whose_output_is_too_large_is_named_with_the_flag() -> None:
    unet = tiny.tiny_unet()
    unet.conv_in.weight.data.mul_(1e5)
    artifact, network = tiny_artifacts.tiny_artifact(unet=unet)
    with pytest.raises(BackendError, match=r"^conv_in reaches 2\.\d+e\+05 \(and \d+ more\).*65504.*--precision fp32"):
        check_by_running(artifact, tiny_artifacts.tiny_reference(artifact, network), "coreml")


def test_scores_of_attention_are_looked_at() -> None:
    unet = tiny.tiny_condition_unet()
    for _, attention in attention_layers(unet):
        attention.to_q.weight.data.mul_(3e3)
        attention.to_k.weight.data.mul_(3e3)
    artifact, network = tiny_artifacts.tiny_artifact(unet=unet)
    found = beyond_fp16(artifact, tiny_artifacts.tiny_reference(artifact, network))
    assert set(found) == {name for name, _ in attention_layers(network)}


def test_a_product_in_front_of_its_power_of_two_is_looked_at() -> None:
    """Its output, 30, fits; times 2^13 it does not, while its bias is not part of the product."""
    layer = nn.Linear(512, 1)
    with torch.no_grad():
        layer.weight.fill_(1e-6)
        layer.bias.fill_(100.0)
    network, x = nn.Sequential(nn.Identity(), layer).requires_grad_(False), torch.full((1, 512), 6e4)
    for growth, expected in ((1.0, {}), (2.0**13, {"1": pytest.approx(2.0**13 * 30.72, rel=1e-4)})):
        with watched(network, {"1": torch.tensor([growth])}) as found:
            network(x)
        assert found == expected


@pytest.mark.parametrize("what", ["record", "scale", "parameter"])
def test_what_the_artifact_says_is_refused_before_anything_runs(what: str, plain: tuple[Artifact, Reference]) -> None:
    artifact = plain[0]
    if what == "record":
        artifact, name = replace(artifact, record={"beyond_fp16": {"conv_in": 3e5}}), "conv_in"
    elif what == "scale":
        scale = artifact.scale.clone()
        scale[1, 3] = 2.0**17
        artifact, name = replace(artifact, scale=scale), artifact.sites[3].name
    else:
        name = "conv_in.bias"
        artifact = replace(artifact, float_parameters={**artifact.float_parameters, name: torch.full((16,), -1e5)})
    with pytest.raises(BackendError, match=rf"^{name} reaches .*--precision fp32"):
        check_known(artifact, "coreml")


def test_a_step_vector_is_refused_and_the_timestep_among_them_stays_float32() -> None:
    artifact, _ = tiny_artifacts.lively_artifact(
        unet=CASES["divided by time"].build().requires_grad_(False), step_vectors=True
    )
    given = artifact.step_vectors
    assert given is not None
    rows = given.rows.clone()
    rows[2, -1] = 1e5  # the timestep
    fitting = replace(artifact, step_vectors=replace(given, rows=rows))
    check_known(fitting, "coreai")
    rows = rows.clone()
    rows[2, 0] = -1e5
    with pytest.raises(BackendError, match=rf"^{given.vectors[0].name} reaches 1e\+05, .*--precision fp32"):
        check_known(replace(artifact, step_vectors=replace(given, rows=rows)), "coreai")


def test_small_weights_that_stay_in_float_are_named() -> None:
    unet = tiny.tiny_unet()
    unet.conv_out.weight.data.mul_(1e-5)
    artifact, network = tiny_artifacts.tiny_artifact(unet=unet)
    text = coarse_in_fp16(tiny_artifacts.with_kept_layers(artifact, network, "conv_out", "conv_in"))
    assert text is not None
    assert "conv_out, kept in float" in text
    assert "conv_in" not in text
