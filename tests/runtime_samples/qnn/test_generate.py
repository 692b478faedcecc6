"""dq-generate with ONNX Runtime: bit for bit the picture of `dq-toolchain generate`, and near it on Qualcomm's emulator."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import dq_toolchain as dq
from dq_toolchain.toolchain.metrics import relative_error
from tests import tiny_pipelines
from tests.api.conftest import FAST, SEEDS
from tests.runtime_samples.cpp_core.conftest import assert_refused, run, seal_files
from tests.shared import once

PROMPT = "a red fox"
QUANTIZE = {"activation_bits": 16, "outputs": "range", "step_vectors": True}
CLOSE = 0.05
"""Relative, of the latents on the emulator after all steps, each of which feels the errors before it; 0.006 was measured."""


def export(folder: Path) -> None:
    tiny_pipelines.save_sd(folder / "model")
    (folder / "prompts.txt").write_text(f"{PROMPT}\ntwo ships\n")
    made = dq.calibrate(
        folder / "model",
        out=folder,
        prompts=folder / "prompts.txt",
        guidance=2.0,
        recipe={**SEEDS, "quantize": QUANTIZE},
        **FAST | {"steps": 2, "step_groups": 1},
    )
    dq.export(made, "qnn", image_to_image=True)


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a whole pipeline."""
    pytest.importorskip("onnxruntime")
    return once(tmp_path_factory, "qnn-pipeline", export) / "qnn"


def draw(program: Path, bundle: Path, out: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    places = ("--out", out / "picture.png", "--latents", out / "latents.safetensors")
    return run(program, "--bundle", bundle, "--prompt", PROMPT, "--seed", "7", *places, *options)


def latents_of(folder: Path) -> Tensor:
    return load_file(folder / "latents.safetensors")["latents"]


@pytest.mark.parametrize("options", [(), ("--low-memory",), ("--threads", "1"), ("--negative-prompt", "two ships")])
def test_the_picture_is_the_hosts(options: tuple[str, ...], pipeline: Path, dq_generate: Path, tmp_path: Path) -> None:
    negative = options[1] if "--negative-prompt" in options else ""
    wanted = dq.generate(pipeline, PROMPT, seed=7, negative_prompt=negative)
    done = draw(dq_generate, pipeline, tmp_path, *options)
    assert done.returncode == 0, done.stderr
    assert torch.equal(latents_of(tmp_path), wanted.latents)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "picture.png")), wanted.pixels.permute(1, 2, 0))


def test_a_picture_is_begun_with(pipeline: Path, dq_generate: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    wanted = dq.generate(pipeline, PROMPT, seed=7, image=tmp_path / "in.png", strength=0.6)
    done = draw(dq_generate, pipeline, tmp_path, "--image", tmp_path / "in.png", "--strength", "0.6")
    assert done.returncode == 0, done.stderr
    assert torch.equal(latents_of(tmp_path), wanted.latents)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "picture.png")), wanted.pixels.permute(1, 2, 0))


@pytest.mark.qnn
def test_the_emulator_draws_nearly_the_same(
    pipeline: Path, dq_generate: Path, qnn_library: Path, tmp_path: Path
) -> None:
    wanted = dq.generate(pipeline, PROMPT, seed=7)
    done = draw(dq_generate, pipeline, tmp_path, "--emulator", "--qnn-library", qnn_library)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1, "Qualcomm's notes go nowhere"
    assert 0 < float(relative_error(latents_of(tmp_path), wanted.latents).max()) < CLOSE, "0 would be the CPU's kernels"
    got = np.asarray(Image.open(tmp_path / "picture.png")).astype(int)
    assert abs(got - wanted.pixels.permute(1, 2, 0).numpy()).max() <= 4


@pytest.mark.slow
@pytest.mark.qnn
def test_contexts_draw_what_the_emulator_draws(
    pipeline: Path, dq_generate: Path, qnn_library: Path, tmp_path: Path
) -> None:
    """The files that a phone loads: Qualcomm's library for x86-64 executes them where no step groups share one."""
    from dq_toolchain.backends.qnn.htp.contexts import write_contexts

    folder = Path(shutil.copytree(pipeline, tmp_path / "bundle"))
    given = ("--soc", "SM8750", "--qnn-library", qnn_library)
    graphs = {name: folder / "parts" / name / f"{name}.onnx" for name in ("text_encoder", "decoder")}
    for name, graph in graphs.items():
        lacking = f"SM8750/{name}/{name}_ctx.onnx; export it with --soc SM8750"
        assert_refused(
            draw(dq_generate, folder, tmp_path, *given), lacking if name == "text_encoder" else "steps_g0_ctx.onnx"
        )
        write_contexts([graph], folder / "SM8750" / name, "SM8750", lambda _: None)
    write_contexts([folder / "model" / "steps_g0.npu.onnx"], tmp_path / "network", "SM8750", lambda _: None)
    for path in (tmp_path / "network").iterdir():
        shutil.copy(path, folder / "SM8750")
    pictures = []
    for options in (given, (*given, "--low-memory"), ("--emulator", *given)):
        done = draw(dq_generate, folder, tmp_path, *options)
        assert done.returncode == 0, done.stderr
        pictures.append((latents_of(tmp_path), (tmp_path / "picture.png").read_bytes()))
    for latents, picture in pictures[1:]:
        assert torch.equal(latents, pictures[0][0])
        assert picture == pictures[0][1]


def put(bundle: Path, part: str, to: str) -> None:
    """Another part's graph in the place of one."""
    source, folder = bundle / "parts" / part, bundle / "parts" / to
    shutil.copy(source / "weights.bin", folder / "weights.bin")
    shutil.copy(source / f"{part}.onnx", folder / f"{to}.onnx")


def test_parts_that_do_not_fit_are_one_line(pipeline: Path, dq_generate: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pipeline, tmp_path / "bundle"))

    def refused(text: str) -> None:
        seal_files(folder)
        assert_refused(draw(dq_generate, folder, tmp_path), text)
        assert not (tmp_path / "picture.png").exists()

    put(folder, "decoder", to="text_encoder")
    refused("text_encoder.onnx takes no 'ids', which pipeline.json names; run `dq-toolchain export` again")
    (folder / "parts" / "text_encoder" / "text_encoder.onnx").write_bytes(b"no graph")
    refused("ONNX Runtime cannot load text_encoder.onnx: ")
    shutil.rmtree(folder)
    shutil.copytree(pipeline, folder)
    about = folder / "pipeline.json"
    text = about.read_text()
    about.write_text(text.replace('"length": 12', '"length": 11'))
    refused("text_encoder.onnx has ids as int64 (1, 12), pipeline.json says int64 (1, 11)")
    about.write_text(text.replace('"mask": false', '"mask": true'))
    refused("text_encoder.onnx takes no 'mask', which pipeline.json names")
    about.write_text(text.replace('"hidden"', '"pooled"').replace("text_encoder.hidden", "text_encoder.pooled"))
    refused("text_encoder.onnx gives no 'pooled', which pipeline.json names")
    about.write_text(text.replace('"height": 8', '"height": 9'))
    refused("the decoder gave (1, 3, 8, 8), expected is (1, 3, 9, 8)")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--emulator",), "--emulator needs --qnn-library"),
        (
            ("--emulator", "--qnn-library", "x.so", "--threads", "2"),
            "--threads is of the CPU, which does not execute here",
        ),
        (("--reload",), "unknown argument '--reload'"),
    ],
)
def test_bad_options_are_one_line(
    options: tuple[str, ...], text: str, pipeline: Path, dq_generate: Path, tmp_path: Path
) -> None:
    assert_refused(draw(dq_generate, pipeline, tmp_path, *options), text)


def test_help_names_the_own_options(dq_generate: Path) -> None:
    done = run(dq_generate, "--help")
    assert done.returncode == 0
    for option in ("--bundle", "--prompt", "--low-memory", "--soc", "--emulator", "--qnn-library"):
        assert f"  {option}" in done.stdout
