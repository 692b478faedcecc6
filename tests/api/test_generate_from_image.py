"""A picture in, a picture out: by bundles, by the simulation, by diffusers, with the same seed; and what is not possible."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import dq_toolchain as dq
from dq_toolchain.toolchain.cli.entry import run_command
from tests.api.drawing import GUIDANCE, NEAR, PROMPT, near

TARGETS = ("executorch", "tensorrt")
STEPS = 4
"""Of the calibration."""


@pytest.fixture(scope="session")
def bundles(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By target, and "plain": one for TensorRT without the option."""
    folder = tmp_path_factory.mktemp("bundles")
    made = {"executorch": drawn / "executorch"}
    for name, with_images in (("tensorrt", True), ("plain", False)):
        bundle = dq.export(drawn / "calibration", "tensorrt", out=folder / name, image_to_image=with_images)
        made[name] = bundle.folder
    return made


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "in.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return path


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_the_same_image_and_seed_give_the_same_picture_everywhere(
    strength: float, bundles: dict[str, Path], drawn: Path, image: Path
) -> None:
    asked: dict[str, Any] = {"prompt": PROMPT, "seed": 7, "image": image, "strength": strength}
    by_pipeline = dq.generate(drawn / "model", steps=STEPS, guidance=GUIDANCE, **asked)
    calls: list[tuple[int, int]] = []
    by_simulation = dq.generate(drawn / "calibration", **asked, progress=lambda *done: calls.append(done))
    assert calls == [(k + 1, int(STEPS * strength)) for k in range(int(STEPS * strength))]
    assert near(by_simulation.pixels, by_pipeline.pixels) > NEAR
    for target in TARGETS:
        by_device = dq.generate(bundles[target], **asked)
        assert by_device.pixels.shape == by_pipeline.pixels.shape == (3, 8, 8)
        assert near(by_device.pixels, by_pipeline.pixels) > NEAR
        other = dq.generate(bundles[target], **{**asked, "seed": 8})
        assert not torch.equal(other.latents, by_device.latents)


def test_less_strength_keeps_more_of_the_image(drawn: Path, image: Path) -> None:
    want = torch.from_numpy(np.asarray(Image.open(image)).copy()).permute(2, 0, 1)
    low, high = (
        dq.generate(drawn / "calibration", PROMPT, seed=7, image=image, strength=strength).latents
        for strength in (0.25, 1.0)
    )
    from_noise = dq.generate(drawn / "calibration", PROMPT, seed=7).latents
    assert want.shape == (3, 8, 8)
    assert not torch.equal(low, high)
    assert not torch.equal(high, from_noise)


@pytest.mark.parametrize("target", TARGETS)
def test_a_bundle_says_what_its_encoder_is(target: str, bundles: dict[str, Path]) -> None:
    about = json.loads((bundles[target] / "pipeline.json").read_text())
    key = about["image_to_image"]
    assert (key["channels"], key["height"], key["width"]) == (3, 8, 8)
    assert key["outputs"] == ["mean", "deviation"]
    assert key["start_rounds"] == "up"
    assert [start["call"] for start in key["starts"][str(STEPS)]] == [0, 1, 2, 3]
    assert list(key["starts"]) == [str(STEPS)]
    assert about["limits"]["mean"] == 0.99
    (row,) = (row for row in about["parts"] if row["name"] == "vae_encoder")
    assert row["cosine"] > 0.99
    assert row["psnr"] is None
    listed = json.loads((bundles[target] / "bundle.json").read_text())["files"]
    assert any(name.startswith(key["program"]) for name in listed)


def test_without_the_option_a_bundle_is_what_it_was(bundles: dict[str, Path]) -> None:
    """Nothing of the encoder is in it, and what both have is the same to the byte."""
    about = json.loads((bundles["plain"] / "pipeline.json").read_text())
    assert "image_to_image" not in about
    assert about["limits"].keys() == {"cosine", "psnr"}
    assert [row["name"] for row in about["parts"]] == ["text_encoder", "decoder"]
    plain, both = (json.loads((bundles[name] / "bundle.json").read_text())["files"] for name in ("plain", "tensorrt"))
    assert not any("vae_encoder" in name for name in plain)
    new = {"parts/vae_encoder/vae_encoder.onnx", "parts/vae_encoder/weights.bin"}
    assert {name for name in both if both[name] != plain.get(name)} == {"pipeline.json", "placements.json", *new}


def painted(mode: str, size: tuple[int, int] = (8, 8), **how: Any) -> Callable[[Path], Path]:
    def paint(folder: Path) -> Path:
        path = folder / "in.png"
        Image.new(mode, size).save(path, **how)
        return path

    return paint


def text(folder: Path) -> Path:
    (folder / "in.png").write_text("no picture at all, but long enough")
    return folder / "in.png"


def cut(folder: Path) -> Path:
    path = painted("RGB")(folder)
    path.write_bytes(path.read_bytes()[:45])
    return path


IMAGES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda folder: folder / "none.png", "cannot be read"),
    "text": (text, "is no PNG file"),
    "cut off": (cut, "cannot be read"),
    "another size": (painted("RGB", (16, 8)), "is 16 x 8 pixels, the model takes 8 x 8"),
    "16 bits": (painted("I;16"), "has 16 bits per channel"),
    "palette": (painted("P"), "colour type 3"),
    "transparent": (painted("RGBA"), "not opaque"),
    "a transparent colour": (painted("RGB", transparency=(0, 0, 0)), "not opaque"),
}


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("source", ["calibration", "model"])
def test_an_image_that_does_not_fit_is_refused(name: str, source: str, drawn: Path, tmp_path: Path) -> None:
    make, said = IMAGES[name]
    with pytest.raises(dq.DqError, match=said) as error:
        dq.generate(drawn / source, PROMPT, image=make(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_gray_and_opaque_pictures_are_taken(mode: str, drawn: Path, tmp_path: Path) -> None:
    colour = 128 if mode == "L" else (128, 128, 128, 255)
    Image.new(mode, (8, 8), colour).save(tmp_path / "one.png")
    Image.new("RGB", (8, 8), (128, 128, 128)).save(tmp_path / "other.png")
    one, other = (
        dq.generate(drawn / "calibration", PROMPT, image=tmp_path / name, strength=0.25)
        for name in ("one.png", "other.png")
    )
    assert torch.equal(one.latents, other.latents)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"strength": 0.0}, "must be above 0 and at most 1, got 0"),
        ({"strength": 1.5}, "got 1.5"),
        ({"strength": float("nan")}, "got nan"),
        ({"strength": 0.2}, "leaves none of 4 steps, allowed is 0.25 or more"),
        ({"strength": 0.5, "image": None}, "give --image, or leave it out"),
        ({"seed": -1}, "--seed must be"),
    ],
)
@pytest.mark.parametrize("source", ["bundle", "calibration", "model"])
def test_a_strength_that_cannot_be_is_refused(
    change: dict[str, Any], said: str, source: str, bundles: dict[str, Path], drawn: Path, image: Path
) -> None:
    folder = bundles["executorch"] if source == "bundle" else drawn / source
    more = {"steps": STEPS} if source == "model" else {}
    if source == "model" and "seed" in change:
        pytest.skip("diffusers takes other seeds")
    with pytest.raises(dq.DqError, match=said):
        dq.generate(folder, **{"prompt": PROMPT, "image": image, **more, **change})


def test_a_bundle_without_the_encoder_refuses_an_image(bundles: dict[str, Path], image: Path) -> None:
    with pytest.raises(dq.DqError, match="export it with --image-to-image"):
        dq.generate(bundles["plain"], PROMPT, image=image)


def test_the_network_alone_and_the_encoder_cannot_both_be(drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(dq.DqError, match="--unet-only leaves out what --image-to-image asks for"):
        dq.export(
            drawn / "calibration", out=tmp_path / "out", image_to_image=True, recipe={"export": {"unet_only": True}}
        )


def test_the_commands_take_the_options(
    bundles: dict[str, Path], image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = str(bundles["executorch"]), tmp_path / "fox.png"
    words = ["generate", "--source", source, "--prompt", PROMPT, "--image", str(image), "--strength", "0.5"]
    assert run_command([*words, "--seed", "7", "--out", str(out)]) == 0
    capsys.readouterr()
    want = dq.generate(source, PROMPT, seed=7, image=image, strength=0.5).pixels
    assert torch.equal(torch.from_numpy(np.asarray(Image.open(out)).copy()).permute(2, 0, 1), want)
    assert run_command([*words[:-1], "2", "--out", str(out)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
