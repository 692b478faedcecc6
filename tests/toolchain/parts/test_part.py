"""A part on disk is a part in memory; what is damaged is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.formats.artifact import LayerWeights
from dq_toolchain.toolchain.parts.part import Part, integer_layers
from dq_toolchain.toolchain.parts.picture import pixels
from tests.tiny_parts import TINY, calls_of, clip_part, decoder_part, encoder_part, t5_part

PARTS: dict[str, Callable[[], Part]] = {
    "clip": clip_part,
    "t5": t5_part,
    "decoder": decoder_part,
    "tiny": lambda: decoder_part(TINY),
    "encoder of pictures": encoder_part,
    "tiny encoder of pictures": lambda: encoder_part(TINY),
}


@pytest.mark.parametrize("kind", PARTS)
@torch.no_grad()
def test_a_saved_part_computes_the_same(kind: str, tmp_path: Path) -> None:
    part = PARTS[kind]()
    part.save(tmp_path)
    again = Part.load(tmp_path, part.header())
    call = calls_of(part)[0]
    for ours, theirs in zip(part.build()(*call.values()), again.build()(*call.values()), strict=True):
        assert torch.equal(ours, theirs)
    assert again.header() == part.header()
    assert {n: r.tolist() for n, r in again.ranges.items()} == {n: r.tolist() for n, r in part.ranges.items()}


@pytest.mark.parametrize("kind", PARTS)
def test_every_product_and_table_is_in_integers(kind: str) -> None:
    part = PARTS[kind]()
    floats = {name.removesuffix(".weight") for name in part.float_parameters}
    assert set(part.layers) == set(integer_layers(part.architecture()))
    assert not floats & set(part.layers)
    assert part.integers > 0.5 * sum(value.numel() for value in part.float_parameters.values())


def test_ranges_hold_what_was_seen() -> None:
    part = decoder_part()
    low, high = part.ranges["post_quant_conv"][:2]
    seen = torch.cat([call["latents"] for call in calls_of(part)]) / 0.18215
    torch.testing.assert_close(torch.stack([low, high]), torch.stack([*seen.aminmax()]))


def _without(name: str) -> Callable[[Part], Part]:
    def spoil(part: Part) -> Part:
        return replace(part, float_parameters={n: v for n, v in part.float_parameters.items() if n != name})

    return spoil


def _wide(part: Part) -> Part:
    name = "encoder.layers.0.mlp.fc1"
    layer = part.layers[name]
    wide = LayerWeights(layer.weight_q.to(torch.int16), layer.weight_scale)
    return replace(part, layers={**part.layers, name: wide})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_without("final_layer_norm.weight"), "final_layer_norm.weight"),
        (_wide, "encoder.layers.0.mlp.fc1 holds no int8"),
    ],
)
def test_a_damaged_part_is_refused_by_name(spoil: Callable[[Part], Part], said: str, tmp_path: Path) -> None:
    part = spoil(clip_part())
    part.save(tmp_path)
    with pytest.raises(ArtifactError, match=said):
        Part.load(tmp_path, part.header())


def test_a_strange_tensor_is_refused(tmp_path: Path) -> None:
    part = clip_part()
    part.save(tmp_path)
    file = tmp_path / "text_encoder.safetensors"
    save_file({**load_file(file), "more/x": torch.zeros(1)}, file)
    with pytest.raises(ArtifactError, match="more/x"):
        Part.load(tmp_path, part.header())


def test_pixels_are_those_of_diffusers() -> None:
    from diffusers.image_processor import VaeImageProcessor

    picture = torch.linspace(-1.3, 1.3, 3 * 16 * 16).view(1, 3, 16, 16)
    processor = VaeImageProcessor()
    theirs = processor.numpy_to_pil(processor.pt_to_numpy(processor.denormalize(picture)))[0]
    assert pixels(picture)[0].permute(1, 2, 0).tolist() == [
        [list(theirs.getpixel((x, y))) for x in range(16)] for y in range(16)
    ]
