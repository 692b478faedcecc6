"""Sides of latents: what each network takes, and sizes that are right."""

from __future__ import annotations

from typing import Any

import pytest

from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.models.architectures import latent_shape
from dq_toolchain.toolchain.models.sizes import divisor_of, not_a_multiple

UNET: dict[str, Any] = {
    "_class_name": "UNet2DModel",
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 8, 8),
}
CONDITIONAL = UNET | {"_class_name": "UNet2DConditionModel"}
DIT = {"_class_name": "DiTTransformer2DModel", "in_channels": 4, "out_channels": 8, "patch_size": 2}


@pytest.mark.parametrize(
    ("config", "divisor"), [(UNET, 4), (UNET | {"block_out_channels": (8,)}, 1), (CONDITIONAL, 4), (DIT, 2)]
)
def test_multiples(config: dict[str, Any], divisor: int) -> None:
    assert divisor_of(config) == divisor
    assert not_a_multiple(config, (2 * divisor, 3 * divisor)) is None


@pytest.mark.parametrize("value", [-1.3e-23, "8", None, (), 0, -2, {}])
def test_what_no_network_is_built_from_has_no_multiple(value: object) -> None:
    assert divisor_of(UNET | {"block_out_channels": value}) == divisor_of(DIT | {"patch_size": value}) == 1


def test_the_sizes_that_are_named_are_right_and_next_to_the_one_asked_for() -> None:
    text = not_a_multiple(CONDITIONAL, (7, 12))
    assert text is not None
    assert "7x12" in text
    assert text.endswith("such as 4x12 or 8x12")
    assert not_a_multiple(CONDITIONAL, (4, 12)) is not_a_multiple(CONDITIONAL, (8, 12)) is None
    assert "such as 4x4" in str(not_a_multiple(CONDITIONAL, (1, 2)))


@pytest.mark.parametrize("config", [UNET, DIT], ids=["unet", "dit"])
def test_networks_that_cannot_resize_are_refused_by_their_config(config: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"sample_size is \[9, 8\].*such as 8x8 or 1[02]x8"):
        latent_shape(config | {"sample_size": (9, 8)})


def test_a_network_that_resizes_takes_any_size() -> None:
    assert latent_shape(CONDITIONAL | {"sample_size": (9, 8)}) == (1, 9, 8)
