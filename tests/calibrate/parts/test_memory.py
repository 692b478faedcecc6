"""The estimate of what the parts need, against what the process takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from scripts.published.encoders import text_config
from transformers import CLIPTextConfig, CLIPTextModel

from dq_toolchain.calibrate.parts.make import _autoencoder, _decoder
from dq_toolchain.calibrate.parts.memory import parts_memory
from dq_toolchain.calibrate.parts.quantize import quantized
from dq_toolchain.calibrate.parts.text import _clip
from dq_toolchain.calibrate.prepare.memory import SCATTERED
from dq_toolchain.toolchain.models.loading import Model, load_model
from dq_toolchain.toolchain.models.parts import load_part
from dq_toolchain.toolchain.recipe.loading import load_recipe
from dq_toolchain.toolchain.recipe.sections import Recipe
from tests import tiny_pipelines
from tests.memory import Peak

WORDS, WIDTH = 80_000, 512
LATENT = (4, 512, 512)
"""One stage of a decoder without halving: 32 MiB a tensor, which the allocator gives back at once."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small pipeline whose text encoder and decoder take some hundred megabytes."""
    folder = tiny_pipelines.save_sd(tmp_path_factory.mktemp("large"))
    torch.manual_seed(0)
    config = text_config(WIDTH)
    config = CLIPTextConfig(**{**config.to_dict(), "vocab_size": WORDS})
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    AutoencoderKL(
        block_out_channels=(32,), down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",),
        latent_channels=4, norm_num_groups=4, mid_block_add_attention=False, sample_size=512,
    ).save_pretrained(folder / "vae")  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load_model(folder)


def recipe(**model: Any) -> Recipe:
    return load_recipe(None, {"model": model})


@pytest.mark.slow  # what the process takes depends on what ran in it before
def test_text_encoders(model: Model, folder: Path) -> None:
    need = parts_memory(model, recipe(), LATENT)
    assert need is not None

    def make() -> None:
        encoder = load_part(CLIPTextModel, folder / "text_encoder", "model")
        made = _clip("text_encoder", "tokenizer", encoder, False)
        ids = torch.zeros(1, 12, dtype=torch.int64)
        quantized("text_encoder", "clip", made.config, made.options, made.module, [{"ids": ids}], ("hidden",))

    make()  # what libraries load
    with Peak() as peak:
        make()
    assert peak.bytes == pytest.approx(SCATTERED * need.text, rel=0.2)
    weights = sum(each.numel() for each in load_part(CLIPTextModel, folder / "text_encoder", "model").parameters())
    assert need.integers == pytest.approx(weights, rel=0.02)


@pytest.mark.slow
def test_the_decoder_and_its_picture(model: Model) -> None:
    need = parts_memory(model, recipe(), LATENT)
    assert need is not None
    with Peak() as peak:
        one = torch.randn(1, *LATENT)
        part, pictures, _ = _decoder(_autoencoder(model, recipe(), pytest.fail), one, one)
    assert part is not None
    assert pictures is not None
    assert pictures.shape == (1, 3, 512, 512)
    assert peak.bytes == pytest.approx(SCATTERED * need.decoder, rel=0.2)
    assert need.peak == max(need.text, need.integers + need.decoder)


def test_what_is_in_memory_does_not_count_again(model: Model, folder: Path) -> None:
    class Pipeline:
        text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder")
        vae = AutoencoderKL.from_pretrained(folder / "vae")

    by_files, by_pipeline = (
        parts_memory(each, recipe(), LATENT) for each in (model, replace(model, pipeline=Pipeline()))
    )
    assert by_files is not None
    assert by_pipeline is not None
    assert by_files.integers == by_pipeline.integers
    assert by_files.text - by_pipeline.text == 4 * by_files.integers
    weights = 4 * sum(each.numel() for each in Pipeline.vae.parameters())
    assert by_files.decoder - by_pipeline.decoder == weights


@pytest.mark.parametrize(
    ("spoil", "decoder"),
    [
        (lambda folder: (folder / "text_encoder" / "model.safetensors").unlink(), True),
        (lambda folder: (folder / "vae" / "config.json").unlink(), False),
    ],
)
def test_a_part_that_is_not_whole_is_named_where_it_is_read(
    spoil: Callable[[Path], None], decoder: bool, tmp_path: Path
) -> None:
    small = load_model(tiny_pipelines.save_sd(tmp_path))
    spoil(tmp_path)
    need = parts_memory(small, recipe(), (4, 8, 8))
    assert need is not None
    assert (need.text == 0) == decoder
    assert (need.decoder > 0) == decoder


def test_a_network_alone_has_no_parts(model: Model, folder: Path) -> None:
    assert parts_memory(replace(model, folder=folder / "unet"), recipe(), LATENT) is None


def test_a_smaller_decoder_needs_less(model: Model, tmp_path: Path) -> None:
    tiny_pipelines.vae().save_pretrained(tmp_path / "vae")
    given, own = (parts_memory(model, each, (4, 8, 8)) for each in (recipe(vae=tmp_path), recipe()))
    assert given is not None
    assert own is not None
    assert given.decoder < own.decoder
    assert _autoencoder(model, recipe(vae=tmp_path), pytest.fail).config.sample_size == 8
