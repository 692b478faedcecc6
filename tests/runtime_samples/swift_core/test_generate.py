"""`dq-replay generate` on Linux: prompt in, picture out, with recorded parts."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from scripts.golden.generate import CASES

from tests.runtime_samples.cpp_core import pngs
from tests.runtime_samples.swift import ROOT, SLOW_AND_ONLY_WITH_SWIFT, inside, packages_tested

GOLDEN = ROOT / "runtime_samples" / "golden" / "generate"

pytestmark = SLOW_AND_ONLY_WITH_SWIFT


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    packages_tested()


def draw(case: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """``folder``/picture.png and latents.safetensors."""
    home = folder / case
    if not home.exists():
        shutil.copytree(GOLDEN / case, home)
    words = json.loads((home / "arguments.json").read_text())
    return inside(
        [
            "swift_core/.build/debug/dq-replay", "generate", "--replay", home / "replay.safetensors", "--bundle", home / "bundle",
            "--out", folder / "picture.png", "--latents", folder / "latents.safetensors", *words, *options,
        ], folder)  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("memory", [(), ("--low-memory",)], ids=["at-once", "one-after-the-other"])
def test_the_picture_is_the_hosts(case: str, memory: tuple[str, ...], tmp_path: Path) -> None:
    done = draw(case, tmp_path, *memory)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    expected = GOLDEN / case / "expected"
    got, wanted = (load_file(folder / "latents.safetensors")["latents"] for folder in (tmp_path, expected))
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)
    picture, host = (np.asarray(Image.open(folder / "picture.png")) for folder in (tmp_path, expected))
    np.testing.assert_array_equal(picture, host)


@pytest.mark.parametrize("case", ["image", "image-noise-in-each-step", "image-other-steps"])
def test_a_picture_is_begun_with(case: str, tmp_path: Path) -> None:
    """The golden picture without compression, which is what is read without ImageIO."""
    pixels = np.asarray(Image.open(GOLDEN / case / "image.png").convert("RGB"))
    (tmp_path / "image.png").write_bytes(pngs.rgb(pixels, level=0))
    done = draw(case, tmp_path, "--image", str(tmp_path / "image.png"))
    assert done.returncode == 0, done.stderr
    expected = GOLDEN / case / "expected"
    got, wanted = (load_file(folder / "latents.safetensors")["latents"] for folder in (tmp_path, expected))
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)
    picture, host = (np.asarray(Image.open(folder / "picture.png")) for folder in (tmp_path, expected))
    np.testing.assert_array_equal(picture, host)


def test_refusals_are_one_line_and_exit_code_2(tmp_path: Path) -> None:
    for options, said in (
        (("--steps", "9"), "the bundle holds 4 steps"),
        (("--mask", "x.png"), "got '--mask', allowed are --bundle"),
        (("--image", "x.png"), "the bundle has no encoder of pictures; export it with --image-to-image"),
        (("--threads", "2"), "got '--threads'"),
    ):
        done = draw("guided", tmp_path, *options)
        assert done.returncode == 2
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "picture.png").exists()
