"""A prompt in, a picture out: by the bundle, by the simulation, by diffusers, with the same seed; and what is not possible."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import dq_toolchain as dq
from dq_toolchain.toolchain.cli.entry import run_command
from dq_toolchain.toolchain.render.chain import WITHOUT
from tests.api.drawing import GUIDANCE, NEAR, PROMPT, near
from tests.tiny_clip import save_clip


def test_the_same_seed_gives_the_same_picture_everywhere(drawn: Path) -> None:
    by_device = dq.generate(drawn / "executorch", PROMPT, seed=7)
    by_simulation = dq.generate(drawn / "calibration", PROMPT, seed=7)
    by_pipeline = dq.generate(drawn / "model", PROMPT, seed=7, steps=4, guidance=GUIDANCE)
    assert by_device.pixels.shape == by_pipeline.pixels.shape == (3, 8, 8)
    assert near(by_device.pixels, by_pipeline.pixels) > NEAR
    assert near(by_simulation.pixels, by_pipeline.pixels) > NEAR
    assert torch.equal(by_device.pixels, dq.generate(drawn / "executorch", PROMPT, seed=7).pixels)


@pytest.mark.parametrize("change", [{"seed": 8}, {"prompt": "two ships at sea"}, {"negative_prompt": "snow"}])
def test_another_wish_is_another_picture(drawn: Path, change: dict[str, Any]) -> None:
    first, other = (
        dq.generate(drawn / "calibration", **{"prompt": PROMPT, "seed": 7, **more}).latents for more in ({}, change)
    )
    assert not torch.equal(first, other)


def test_a_prompt_that_is_too_long_is_told(drawn: Path) -> None:
    told: list[str] = []
    dq.generate(drawn / "calibration", "a red fox and two ships", on_note=told.append)
    assert told == ["prompt 'a red fox and two ships' is too long for tokenizer: its last 8 tokens are left out"]


@pytest.mark.parametrize(
    ("source", "wish", "said"),
    [
        ("executorch", {}, "--prompt is missing"),
        ("executorch", {"prompt": "a (fox:1.2)"}, "write plain words"),
        ("executorch", {"prompt": "x", "steps": 7}, "the bundle holds 4 steps"),
        ("executorch", {"prompt": "x", "threads": 0}, "threads must be 1-256"),
        ("executorch", {"prompt": "x", "seed": -1}, "--seed must be"),
        ("calibration", {"prompt": "x", "label": 1}, "takes no class"),
        ("calibration", {"prompt": "x", "steps": 7}, "7 steps"),
        ("model", {}, "--prompt is missing"),
        (".", {"prompt": "x"}, "is no bundle"),
    ],
)
def test_what_is_not_possible_is_said(drawn: Path, source: str, wish: dict[str, Any], said: str) -> None:
    with pytest.raises(dq.DqError, match=said):
        dq.generate(drawn / source, **wish)


def test_the_report_follows_the_chain_from_the_prompt_on(drawn: Path) -> None:
    chain = dq.validate(drawn / "executorch" / "report.json").chain
    assert chain is not None
    assert chain.prompts == ("a red fox", "two ships")
    assert [stage.name for stage in chain.stages] == ["decoder", "network", "prompt"]
    assert all(value > NEAR for stage in chain.stages for value in stage.psnr)
    again = dq.generate(drawn / "executorch", PROMPT, seed=0)  # held-out sample 0
    assert torch.equal(chain.stages[2].pictures[0], again.pixels)


def test_pictures_of_a_report_are_checked(drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn / "executorch", tmp_path / "executorch")
    (tmp_path / "executorch" / "pictures.safetensors").write_bytes(b"x")
    with pytest.raises(dq.DqError, match=r"pictures\.safetensors"):
        dq.validate(tmp_path / "executorch" / "report.json")


def test_the_network_alone_draws_nothing(drawn: Path) -> None:
    bundle = dq.export(drawn / "calibration", "tensorrt", recipe={"export": {"unet_only": True}})
    assert not (bundle.folder / "parts").exists()
    assert not (bundle.folder / "pipeline.json").exists()
    with pytest.raises(dq.DqError, match="holds the network alone"):
        dq.generate(bundle, PROMPT)


def test_the_command_writes_a_png(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    source, out = str(drawn / "executorch"), tmp_path / "fox.png"
    assert (
        run_command(["generate", "--source", source, "--prompt", PROMPT, "--seed", "7", "--out", str(out), "--json"])
        == 0
    )
    assert json.loads(capsys.readouterr().out)["by"] == "bundle"
    want = dq.generate(source, PROMPT, seed=7).pixels
    assert torch.equal(
        torch.tensor(list(Image.open(out).tobytes()), dtype=torch.uint8).view(8, 8, 3).permute(2, 0, 1), want
    )


@pytest.mark.parametrize("out", ["fox.jpg", "missing/fox.png", "folder.png"])
def test_a_place_that_cannot_be_written_is_refused_first(
    out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder.png").mkdir()
    assert run_command(["generate", "--source", str(tmp_path), "--prompt", "x", "--out", str(tmp_path / out)]) == 2
    assert "--out" in capsys.readouterr().err


def test_a_clip_model_scores_the_chain_and_decides_nothing(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_clip(tmp_path / "tiny-clip")
    report = drawn / "executorch" / "report.json"
    verdict = dq.validate(report, html=tmp_path / "page.html", clip=tmp_path / "tiny-clip")
    assert verdict.checks == dq.validate(report).checks
    assert verdict.chain is not None
    assert verdict.chain.clip is not None
    assert min(verdict.chain.clip.picture["decoder"]) > 0.9
    page = (tmp_path / "page.html").read_text()
    assert "CLIP: cosines by tiny-clip" in page
    assert ", ".join(f"{value:.4f}" for value in verdict.chain.clip.picture["prompt"]) in page
    words = ["validate", str(report), "--clip", str(tmp_path / "tiny-clip"), "--html", str(tmp_path / "other.html")]
    run_command([*words, "--json"])
    said = json.loads(capsys.readouterr().out)
    assert said["clip"] == verdict.chain.clip.to_json()
    run_command(["validate", str(report), "--html", str(tmp_path / "without.html")])
    assert WITHOUT in " ".join(capsys.readouterr().out.split())
    assert WITHOUT in (tmp_path / "without.html").read_text()
    assert run_command(["validate", str(report), "--clip", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
