"""dq-generate with the real runtime: the picture of `dq-toolchain generate`, bit for bit, of a pipeline with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import dq_toolchain as dq
from tests.api.conftest import drawn
from tests.api.drawing import PROMPT
from tests.runtime_samples.building import add_target
from tests.runtime_samples.cpp_core.conftest import assert_refused, run

__all__ = ["drawn"]


@pytest.fixture(scope="session")
def dq_generate(dq_run: Path) -> Path:
    """dq-generate, linked with the installed wheel."""
    add_target(dq_run.parent, "dq-generate", "PNG")
    return dq_run.parent / "dq-generate"


@pytest.mark.parametrize(
    "options", [(), ("--low-memory",), ("--threads", "1"), ("--negative-prompt", "two ships, snow")]
)
def test_the_picture_is_the_hosts(options: tuple[str, ...], drawn: Path, dq_generate: Path, tmp_path: Path) -> None:
    wanted = dq.generate(
        drawn / "executorch", PROMPT, seed=7, negative_prompt=options[1] if "--negative-prompt" in options else ""
    )
    places = ("--out", tmp_path / "picture.png", "--latents", tmp_path / "latents.safetensors")
    done = run(dq_generate, "--bundle", drawn / "executorch", "--prompt", PROMPT, "--seed", "7", *places, *options)
    assert done.returncode == 0, done.stderr
    assert torch.equal(load_file(tmp_path / "latents.safetensors")["latents"], wanted.latents)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "picture.png")), wanted.pixels.permute(1, 2, 0))


def test_a_picture_is_begun_with(drawn: Path, dq_generate: Path, tmp_path: Path) -> None:
    bundle = drawn / "executorch"
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    places = ("--out", tmp_path / "picture.png", "--latents", tmp_path / "latents.safetensors")
    for strength in (0.6, 1.0):
        wanted = dq.generate(bundle, PROMPT, seed=7, image=tmp_path / "in.png", strength=strength)
        image = ("--image", tmp_path / "in.png", "--strength", str(strength))
        done = run(dq_generate, "--bundle", bundle, "--prompt", PROMPT, "--seed", "7", *image, *places)
        assert done.returncode == 0, done.stderr
        assert torch.equal(load_file(tmp_path / "latents.safetensors")["latents"], wanted.latents)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "picture.png")), wanted.pixels.permute(1, 2, 0))


def test_a_bundle_of_the_network_alone(dq_generate: Path, tmp_path: Path) -> None:
    folder = Path(__file__).parents[2] / "data" / "bundles_0.1" / "executorch"
    done = run(dq_generate, "--bundle", folder, "--prompt", "x", "--out", tmp_path / "x.png")
    assert_refused(done, "holds a network alone, without text encoder and decoder; export the whole pipeline")
