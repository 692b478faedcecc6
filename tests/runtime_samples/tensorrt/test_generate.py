"""dq_generate_trt against the fake TensorRT, whose engines replay golden pipelines: the host's picture, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from tests.runtime_samples.building import add_target, sanitized_programs
from tests.runtime_samples.tensorrt.cpp import (
    FIRST_SCRATCH,
    call,
    generate_bundle_of,
    give_other_weights,
    plan_of_part,
)
from tests.runtime_samples.tensorrt.programs import GOLDEN, assert_refused

CASES = ("guided", "two-encoders", "noise-in-each-step")
MODES: dict[str, tuple[str, ...]] = {
    "resident": (),
    "low memory": ("--low-memory",),
    "plain": ("--no-cuda-graphs",),
    "low memory plain": ("--low-memory", "--no-cuda-graphs"),
}
pytestmark = pytest.mark.skipif(not (shutil.which("g++") and shutil.which("cmake")), reason="needs g++ and cmake")


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dq_generate_trt, with sanitizers."""
    folder = sanitized_programs(tmp_path_factory)
    add_target(folder, "dq_generate_trt", "PNG")
    return folder / "dq_generate_trt"


def draw(program: Path, case: str, bundle: Path, *options: str, **environment: str) -> Any:
    words = json.loads((GOLDEN / "generate" / case / "arguments.json").read_text())
    places = ("--out", bundle.parent / "picture.png", "--latents", bundle.parent / "latents.safetensors")
    return call(program, "--bundle", bundle, *places, *words, *options, **environment)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mode", MODES)
def test_the_picture_is_the_hosts(mode: str, case: str, program: Path, tmp_path: Path) -> None:
    bundle, log = generate_bundle_of(case, tmp_path), tmp_path / "log"
    done = draw(program, case, bundle, *MODES[mode], FAKE_LOG=str(log))
    assert done.returncode == 0, done.stderr
    expected = GOLDEN / "generate" / case / "expected"
    got, wanted = (load_file(folder / "latents.safetensors")["latents"] for folder in (tmp_path, expected))
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)
    picture, host = (np.asarray(Image.open(folder / "picture.png")) for folder in (tmp_path, expected))
    np.testing.assert_array_equal(picture, host)
    events = log.read_text().splitlines()
    parts = len(json.loads((bundle / "pipeline.json").read_text())["encoders"]) + 1
    loaded = [event for event in events if event.startswith("load")]
    assert len(loaded) == parts + 2  # the network has two step groups
    assert max(loaded) == f"load, alive {1 if '--low-memory' in MODES[mode] else parts + 2}"
    assert events.count("capture") == (0 if "--no-cuda-graphs" in MODES[mode] else 2)


@pytest.mark.parametrize("case", ["image", "image-noise-in-each-step", "image-other-steps"])
@pytest.mark.parametrize("mode", ["resident", "low memory"])
def test_a_picture_is_begun_with(mode: str, case: str, program: Path, tmp_path: Path) -> None:
    bundle, log = generate_bundle_of(case, tmp_path), tmp_path / "log"
    image = ("--image", str(GOLDEN / "generate" / case / "image.png"))
    done = draw(program, case, bundle, *image, *MODES[mode], FAKE_LOG=str(log))
    assert done.returncode == 0, done.stderr
    host = np.asarray(Image.open(GOLDEN / "generate" / case / "expected" / "picture.png"))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "picture.png")), host)
    events = log.read_text().splitlines()
    alive = max(int(event.split()[-1]) for event in events if event.startswith("load"))
    assert alive == (1 if mode == "low memory" else 5)  # two encoders, decoder, two step groups


def test_other_prompts_are_noticed(program: Path, tmp_path: Path) -> None:
    """The recordings are a check only if they refuse what they do not hold."""
    bundle = generate_bundle_of("guided", tmp_path)
    done = call(program, "--bundle", bundle, "--out", tmp_path / "x.png", "--prompt", "a red cat", "--seed", "7")
    assert done.returncode == 70
    assert "fake: text_encoder was given another ids" in done.stderr


def test_what_is_refused(program: Path, tmp_path: Path) -> None:
    bundle = generate_bundle_of("noise-in-each-step", tmp_path)
    plan = bundle / "engines" / "text_encoder.plan"
    good = plan.read_text()
    ports = {"in ids": [16], "out hidden": [16, 5]}

    def refused(*texts: str, options: tuple[str, ...] = (), **environment: str) -> None:
        assert_refused(draw(program, "noise-in-each-step", bundle, *options, **environment), *texts)
        assert not (tmp_path / "picture.png").exists()

    refused("--threads cannot be set for TensorRT", options=("--threads", "2"))
    refused("cudaMalloc failed with CUDA error 2", "dq_generate_trt: --low-memory", FAKE_MEMORY="1500")
    refused("could not execute text_encoder.plan", FAKE_ENQUEUES="0")
    plan.write_text(plan_of_part(tmp_path, "text_encoder", {"in ids": [15], "out hidden": [16, 5]}, FIRST_SCRATCH))
    refused("text_encoder.plan has 'ids', int64 of shape (1, 15), pipeline.json has int64 of shape (1, 16)", "--force")
    plan.write_text(plan_of_part(tmp_path, "text_encoder", ports | {"in mask": [16]}, FIRST_SCRATCH))
    refused("text_encoder.plan has 'mask'", "pipeline.json has none of that name")
    plan.write_text(plan_of_part(tmp_path, "text_encoder", {"in ids": [16], "out pooled": [5]}, FIRST_SCRATCH))
    refused("text_encoder.plan has 'pooled'", "pipeline.json has none of that name")
    plan.write_text(plan_of_part(tmp_path, "text_encoder", {"in ids": [16]}, FIRST_SCRATCH))
    refused("text_encoder.plan has no 'hidden', which pipeline.json names")
    plan.write_text("of another TensorRT")
    refused("text_encoder.plan does not load", "TensorRT says: Version tag does not match.")
    plan.unlink()
    refused("text_encoder.plan is missing", "python3 build_engines.py")
    plan.write_text(good)
    weights = bundle / "parts" / "text_encoder.graph" / "weights.bin"
    files = weights.read_bytes(), (bundle / "bundle.json").read_bytes()
    give_other_weights(bundle, weights.relative_to(bundle).as_posix())
    refused("text_encoder.plan was not made of the graph and weights of this bundle", "python3 build_engines.py")
    weights.write_bytes(files[0])
    (bundle / "bundle.json").write_bytes(files[1])
    decoder = bundle / "engines" / "decoder.plan"
    decoder.write_text(decoder.read_text().replace("out picture float32", "out picture float16"))
    refused("decoder.plan has 'picture', dtype number 1 of shape (1, 1, 12, 12), pipeline.json has float32")
    (bundle / "parts" / "decoder.bin").write_text("other")
    refused("parts/decoder.bin was changed after it was written")


def test_help(program: Path) -> None:
    done = call(program, "--help")
    assert done.returncode == 0
    for option in ("--bundle", "--prompt", "--seed", "--low-memory", "--no-cuda-graphs"):
        assert option in done.stdout
