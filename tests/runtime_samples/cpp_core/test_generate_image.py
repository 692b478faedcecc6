"""A picture and a prompt in, a picture out: the latents and pixels that the host has, every form of PNG, and what is refused."""

from __future__ import annotations

import io
import json
import random
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file

from tests.runtime_samples.building import add_target
from tests.runtime_samples.cpp_core import pngs
from tests.runtime_samples.cpp_core.conftest import GOLDEN, assert_refused, run, seal_files
from tests.runtime_samples.cpp_core.test_generate_bundles import put

FOLDER = GOLDEN / "generate"
CASES = {"image": "2 of 4", "image-noise-in-each-step": "3 of 4", "image-other-steps": "3 of 6"}
"""Golden case -> how many of its steps run."""
SIDE = 12


@pytest.fixture(scope="session")
def program(sanitized: Path) -> Path:
    """dq-generate-replay, with sanitizers."""
    add_target(sanitized.parent, "dq-generate-replay", "PNG")
    return sanitized / "dq-generate-replay"


def draw(
    program: Path,
    case: str,
    out: Path,
    *options: str,
    image: Path | None = None,
    bundle: Path | None = None,
    without: tuple[str, ...] = (),
) -> subprocess.CompletedProcess[str]:
    """``out``/picture.png and latents.safetensors of a golden case. ``without``: its options that are left out."""
    folder = FOLDER / case
    words: list[str] = json.loads((folder / "arguments.json").read_text())
    words = [
        word
        for name, value in zip(words[::2], words[1::2], strict=True)
        if name not in without
        for word in (name, value)
    ]
    given = ("--bundle", bundle or folder / "bundle", "--image", image or folder / "image.png")
    places = ("--out", out / "picture.png", "--latents", out / "latents.safetensors")
    return run(program, folder / "replay.safetensors", *given, *places, *words, *options)


def refused(done: subprocess.CompletedProcess[str], text: str, out: Path) -> None:
    """The last line says it: a prompt that is too long is told first."""
    assert done.returncode == 2, done.stderr[-2000:]
    assert not done.stdout
    assert text in done.stderr.splitlines()[-1], done.stderr
    assert not (out / "picture.png").exists()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("memory", [(), ("--low-memory",)], ids=["at-once", "one-after-the-other"])
def test_the_picture_is_the_hosts(case: str, memory: tuple[str, ...], program: Path, tmp_path: Path) -> None:
    done = draw(program, case, tmp_path, *memory)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f", {CASES[case]} steps, " in done.stdout
    expected = FOLDER / case / "expected"
    got, wanted = (load_file(folder / "latents.safetensors")["latents"] for folder in (tmp_path, expected))
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)
    picture, host = (np.asarray(Image.open(folder / "picture.png")) for folder in (tmp_path, expected))
    np.testing.assert_array_equal(picture, host)


def saved(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", **options)
    return buffer.getvalue()


GRAY = np.asarray(Image.open(FOLDER / "image-noise-in-each-step" / "image.png").convert("L"))
THREE = np.stack([GRAY] * 3, -1)
FORMS: dict[str, Callable[[], bytes]] = {
    "gray": lambda: saved(Image.fromarray(GRAY)),
    "gray with alpha": lambda: saved(Image.fromarray(GRAY).convert("LA")),
    "RGB": lambda: saved(Image.fromarray(THREE)),
    "RGB with alpha": lambda: saved(Image.fromarray(THREE).convert("RGBA")),
    "a transparent colour that no pixel has": lambda: saved(Image.fromarray(THREE), transparency=(1, 2, 3)),
    "palette": lambda: saved(Image.fromarray(GRAY).convert("P")),
    "a gamma that is not applied": lambda: pngs.rgb(THREE, [pngs.chunk(b"gAMA", struct.pack(">I", 100000))]),
    "interlaced": lambda: pngs.interlaced(THREE),
}
"""The same pixels, as files."""


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_file_gives_its_pixels(form: str, program: Path, tmp_path: Path) -> None:
    """The recording refuses a picture with another pixel, see below."""
    (tmp_path / "image.png").write_bytes(FORMS[form]())
    done = draw(program, "image-noise-in-each-step", tmp_path, image=tmp_path / "image.png")
    assert done.returncode == 0, done.stderr[-3000:]


def test_another_picture_and_another_strength_are_noticed(program: Path, tmp_path: Path) -> None:
    pixels = THREE.copy()
    pixels[3, 4, 1] ^= 1
    (tmp_path / "image.png").write_bytes(pngs.rgb(pixels))
    other = draw(program, "image-noise-in-each-step", tmp_path, image=tmp_path / "image.png")
    refused(other, "vae_encoder.picture of execution 0 is not what the recording has", tmp_path)
    refused(
        draw(program, "image", tmp_path, "--strength", "0.9", without=("--strength",)), "the recording has", tmp_path
    )


def with_alpha(opacity: int) -> Image.Image:
    image = Image.fromarray(THREE).convert("RGBA")
    image.putpixel((11, 11), (1, 2, 3, opacity))
    return image


def seen(pixels: NDArray[np.uint8]) -> tuple[int, ...]:
    return tuple(map(int, pixels[5, 5]))


FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "no PNG": (lambda: b"GIF89a" + bytes(100), "is no PNG file; save the picture as one"),
    "empty": (lambda: b"", "is no PNG file"),
    "16 bits": (
        lambda: saved(Image.fromarray(GRAY.astype(np.uint16))),
        "has 16 bits per channel, allowed are 8; convert it",
    ),
    "1 bit": (lambda: saved(Image.fromarray(GRAY).convert("1")), "has 1 bits per channel, allowed are 8"),
    "another size": (
        lambda: saved(Image.fromarray(THREE[:, :9])),
        "is 9 x 12 pixels, the model takes 12 x 12; scale or crop it",
    ),
    "a pixel to be seen through": (lambda: saved(with_alpha(254)), "has pixels that are not opaque"),
    "a transparent colour": (
        lambda: saved(Image.fromarray(THREE), transparency=seen(THREE)),
        "has pixels that are not opaque",
    ),
    "sizes beyond memory": (
        lambda: pngs.file_of(pngs.head(999_999, 999_999), pngs.chunk(b"IDAT", b"")),
        "is 999999 x 999999 pixels, the model takes 12 x 12",
    ),
    "sizes beyond the format": (lambda: pngs.file_of(pngs.head(2**31, 2**31)), "cannot be read: "),
    "no pixels": (lambda: pngs.file_of(pngs.head(SIDE, SIDE)), "cannot be read: "),
    "too few pixels": (
        lambda: pngs.file_of(pngs.head(SIDE, SIDE), pngs.chunk(b"IDAT", b"x\x9c\x03\x00\x00\x00\x00\x01")),
        "cannot be read: ",
    ),
    "no head": (lambda: pngs.file_of(), "cannot be read: "),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_such_picture(name: str, program: Path, tmp_path: Path) -> None:
    made, said = FILES[name]
    (tmp_path / "image.png").write_bytes(made())
    done = draw(program, "image", tmp_path, image=tmp_path / "image.png")
    assert_refused(done, said)
    assert "--image: " in done.stderr


def test_a_file_that_is_not_there(program: Path, tmp_path: Path) -> None:
    assert_refused(draw(program, "image", tmp_path, image=tmp_path / "none.png"), "none.png does not exist")
    assert_refused(draw(program, "image", tmp_path, image=tmp_path), str(tmp_path))


def test_damaged_files_are_one_line_or_a_picture(program: Path, tmp_path: Path) -> None:
    """Cut off anywhere, and with bytes changed: what a sanitizer finds would be another exit code."""
    chance, whole = random.Random(5), saved(Image.fromarray(THREE).convert("P"))
    files = [whole[:size] for size in range(0, len(whole), 9)]
    for _ in range(60):
        changed = bytearray(FORMS[chance.choice(list(FORMS))]())
        for _ in range(chance.randrange(1, 4)):
            changed[chance.randrange(8, len(changed))] = chance.randrange(256)
        files.append(bytes(changed))
    codes = set()
    for number, data in enumerate(files):
        path = tmp_path / f"{number}.png"
        path.write_bytes(data)
        done = draw(program, "image-noise-in-each-step", tmp_path, image=path)
        assert done.returncode in (0, 2), (number, done.stderr[-2000:])
        assert done.stderr.count("\n") == (1 if done.returncode else 0) + ("warning" in done.stderr), done.stderr
        codes.add(done.returncode)
    assert 2 in codes


KEY = "image_to_image"
FAULTS: dict[str, tuple[Callable[[Any], object], str]] = {
    "no object": (put(KEY, to=None), "image_to_image: the value must be an object, got null"),
    "program": (put(KEY, "program", to="../x"), "image_to_image: program names a place outside the bundle: ../x"),
    "program, not listed": (put(KEY, "program", to="parts/x"), "files must list parts/x"),
    "channels": (put(KEY, "channels", to=1), "image_to_image: channels must be 3-3, got 1"),
    "height": (put(KEY, "height", to=0), "image_to_image: height must be 1-16384, got 0"),
    "width": (put(KEY, "width", to=16385), "image_to_image: width must be 1-16384, got 16385"),
    "outputs": (put(KEY, "outputs", to=["deviation"]), "image_to_image: outputs must be mean, or mean and deviation"),
    "no outputs": (put(KEY, "outputs", to=[]), "image_to_image: outputs must be mean, or mean and deviation"),
    "rounds": (put(KEY, "start_rounds", to="even"), "image_to_image: start_rounds must be up or down, got even"),
    "no starts": (put(KEY, "starts", to={}), "image_to_image: starts must not be empty"),
    "count": (put(KEY, "starts", to={"x": []}), "image_to_image: starts must be by step count, got 'x'"),
    "large count": (put(KEY, "starts", to={"1" * 30: []}), "image_to_image: starts must be by step count, got '1111"),
    "rows": (lambda data: data[KEY]["starts"]["4"].pop(), "starts must hold one for each of 4 steps, got 3"),
    "call": (put(KEY, "starts", "4", 2, "call", to=-1), "image_to_image: call must be 0-1000000, got -1"),
    "call beyond": (put(KEY, "starts", "4", 2, "call", to=4), "a start at call 4 with 2 calls does not belong to 4 calls"),
    "calls": (put(KEY, "starts", "4", 2, "call", to=1), "a start at call 1 with 2 calls does not belong to 4 calls"),
    "signal": (put(KEY, "starts", "4", 2, "signal", to=1e39), "image_to_image: signal has a number beyond float32"),
    "noise": (put(KEY, "starts", "4", 2, "noise", to="x"), "image_to_image: noise must be a number, got text"),
    "no table": (put(KEY, "starts", "4", 2, "table", to=None), "a start at call 2 looks back on earlier calls, and has no table"),
    "table": (put(KEY, "starts", "4", 2, "table", "c", to=[0.0]), "image_to_image: the table has 1 rows for 2 timesteps"),
    "no other steps": (put(KEY, "starts", to={"1": [], "2": []}), "starts must hold one for each of 1 steps, got 0"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_the_first_fault_is_named(name: str, program: Path, tmp_path: Path) -> None:
    change, said = FAULTS[name]
    bundle = Path(shutil.copytree(FOLDER / "image" / "bundle", tmp_path / "bundle"))
    data = json.loads((bundle / "pipeline.json").read_text())
    change(data)
    (bundle / "pipeline.json").write_text(json.dumps(data))
    seal_files(bundle)
    refused(draw(program, "image", tmp_path, bundle=bundle), said, tmp_path)


def test_starts_of_other_steps_are_named(program: Path, tmp_path: Path) -> None:
    case = "image-other-steps"
    bundle = Path(shutil.copytree(FOLDER / case / "bundle", tmp_path / "bundle"))
    data = json.loads((bundle / "pipeline.json").read_text())
    del data[KEY]["starts"]["6"]
    (bundle / "pipeline.json").write_text(json.dumps(data))
    seal_files(bundle)
    said = "--image: there are no starts with a picture for 6 steps, but for 4; choose of these (--steps)"
    refused(draw(program, case, tmp_path, bundle=bundle), said, tmp_path)


@pytest.mark.parametrize("part", ["mean", "deviation"])
def test_latents_of_another_shape_are_refused(part: str, program: Path, tmp_path: Path) -> None:
    """Of an encoder that was exchanged: the recording of another case plays it."""
    from safetensors.numpy import save_file

    folder = Path(shutil.copytree(FOLDER / "image", tmp_path / "case"))
    tensors = load_file(folder / "replay.safetensors")
    tensors[f"vae_encoder.{part}"] = np.zeros((1, 4, 3, 12), np.float32)
    save_file(tensors, folder / "replay.safetensors")
    words = json.loads((folder / "arguments.json").read_text())
    given = ("--bundle", folder / "bundle", "--image", folder / "image.png", "--out", tmp_path / "picture.png", *words)
    done = run(program, folder / "replay.safetensors", *given)
    refused(done, "the encoder of pictures gave (1, 4, 3, 12), expected is (1, 4, 6, 6)", tmp_path)


def test_a_bundle_without_the_encoder(program: Path, tmp_path: Path) -> None:
    done = draw(program, "image", tmp_path, bundle=FOLDER / "guided" / "bundle")
    assert_refused(done, "--image: the bundle has no encoder of pictures; export it with --image-to-image")


def test_a_picture_is_not_needed(program: Path, tmp_path: Path) -> None:
    """Without --image such a bundle begins with noise, which this recording does not hold."""
    folder = FOLDER / "image"
    given = (
        "--bundle",
        folder / "bundle",
        "--out",
        tmp_path / "picture.png",
        "--prompt",
        "a photo of a red cat",
        "--seed",
        "7",
    )
    done = run(program, folder / "replay.safetensors", *given)
    refused(done, "the recording has", tmp_path)
    assert "vae_encoder" not in done.stderr
