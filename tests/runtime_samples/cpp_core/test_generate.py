"""Prompt in, picture out, with recorded parts: the latents and pixels that the host has, and what is refused."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from scripts.golden.generate import CASES, write_case

from dq_toolchain.toolchain.parts.prompting import WEIGHTED
from tests.runtime_samples.building import add_target
from tests.runtime_samples.cpp_core.conftest import GOLDEN, assert_refused, run
from tests.runtime_samples.cpp_core.test_torch_random import WITH_AVX2

FOLDER = GOLDEN / "generate"


@pytest.fixture(scope="session")
def program(sanitized: Path) -> Path:
    """dq-generate-replay, with sanitizers."""
    add_target(sanitized.parent, "dq-generate-replay", "PNG")
    return sanitized / "dq-generate-replay"


def arguments_of(case: str) -> list[str]:
    words: list[str] = json.loads((FOLDER / case / "arguments.json").read_text())
    return words


def draw(
    program: Path, case: str, out: Path, *options: str, bundle: Path | None = None, words: list[str] | None = None
) -> subprocess.CompletedProcess[str]:
    """``out``/picture.png and latents.safetensors of a golden case."""
    folder, words = FOLDER / case, arguments_of(case) if words is None else words
    places = ("--out", out / "picture.png", "--latents", out / "latents.safetensors")
    return run(
        program, folder / "replay.safetensors", "--bundle", bundle or folder / "bundle", *places, *words, *options
    )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("memory", [(), ("--low-memory",)], ids=["at-once", "one-after-the-other"])
def test_the_picture_is_the_hosts(case: str, memory: tuple[str, ...], program: Path, tmp_path: Path) -> None:
    done = draw(program, case, tmp_path, *memory)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("\n") == 1
    expected = FOLDER / case / "expected"
    got, wanted = (load_file(folder / "latents.safetensors")["latents"] for folder in (tmp_path, expected))
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)
    picture, host = (np.asarray(Image.open(folder / "picture.png")) for folder in (tmp_path, expected))
    assert picture.dtype == host.dtype == np.uint8
    np.testing.assert_array_equal(picture, host)


def test_what_is_cut_off_is_said(program: Path, tmp_path: Path) -> None:
    done = draw(program, "two-encoders", tmp_path)
    assert [line.split("; left out: ")[1] for line in done.stderr.splitlines()] == [
        "the red cat high quality photo of the red cat"
    ] * 2
    assert "--prompt is longer than the 16 tokens of tokenizer_2" in done.stderr


CHANGES = {
    "another seed": ("guided", ["--prompt", "A photo of a RED ball on the grass, it's naı̈ve!", "--seed", "8"]),
    "another prompt": ("guided", ["--prompt", "a photo of a red cat", "--seed", "7"]),
    "another negative": ("guided", [*arguments_of("guided")[:-1], "cat"]),
    "a negative prompt": ("two-encoders", [*arguments_of("two-encoders"), "--negative-prompt", "cat"]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_other_arguments_are_noticed(name: str, program: Path, tmp_path: Path) -> None:
    """The recordings are a check only if they refuse what they do not hold."""
    case, words = CHANGES[name]
    done = draw(program, case, tmp_path, words=words)
    assert done.returncode == 2
    assert "is not what the recording has" in done.stderr or "the recording has" in done.stderr
    assert not list(tmp_path.iterdir())


NOTATION = "are not supported, the text encoder would read them as letters; write plain words"
REFUSED = {
    "weighted": (["--prompt", "a (red:1.3) ball"], f"--prompt: weights and embeddings such as '(red:1.3)' {NOTATION}"),
    "weighted within": (["--prompt", "a ((very red:1.3) big) ball"], f"such as '((' {NOTATION}"),
    "weakened": (["--prompt", "a [[red]] ball"], f"such as '[[' {NOTATION}"),
    "inversion": (["--prompt", "a <my-cat> on grass"], f"such as '<my-cat>' {NOTATION}"),
    "adapter": (["--prompt", "a cat <lora:x_1:0.5>"], f"such as '<lora:x_1:0.5>' {NOTATION}"),
    "special token": (["--prompt", "a <|endoftext|>"], f"such as '<|endoftext|>' {NOTATION}"),
    "in the other": (
        ["--prompt", "a", "--negative-prompt", "<bad>"],
        "--negative-prompt: weights and embeddings such as",
    ),
    "too long": (["--prompt", "x" * 10_001], "--prompt has 10001 characters, allowed are 10000; shorten it"),
    "no prompt": ([], "--prompt is missing: this model draws what a text says; give one; see --help"),
    "label": (["--prompt", "a", "--label", "3"], "--label: this model takes no class; leave it out"),
    "seed": (["--prompt", "a", "--seed", "-1"], "--seed must be a number from 0 to 9223372036854775807, got '-1'"),
    "large seed": (["--prompt", "a", "--seed", str(2**63)], "--seed must be a number from 0 to"),
    "threads": (["--prompt", "a", "--threads", "0"], "--threads must be a number from 1, got '0'"),
    "steps": (["--prompt", "a", "--steps", "9"], "got 9 steps, guidance 2.5, the bundle holds 4 steps, guidance 2.5"),
    "unknown": (["--prompt", "a", "--mask", "x.png"], "unknown argument '--mask', allowed are --bundle, --prompt"),
    "twice": (["--prompt", "a", "--prompt", "b"], "--prompt is given twice"),
    "no value": (["--prompt"], "--prompt needs a value"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_command_lines(name: str, program: Path, tmp_path: Path) -> None:
    words, said = REFUSED[name]
    assert_refused(draw(program, "guided", tmp_path, words=words), said)


PLAIN = [
    "a cat (sitting), 3:2",
    "a <3 b, c > d",
    "f(x) = [] <>",
    "time: 10:30 (noon)",
    "[draft] a fox",
    "(a: 1.3 b)",
    "",
]
PIECES = [
    "a",
    "b ",
    "(",
    "((",
    ")",
    "[",
    "]",
    "<",
    ">",
    ":",
    "1",
    ".5",
    "-",
    " ",
    "|",
    "_",
    "\u00e9",
    "\t",
    "1.3",
    "lora:",
]


def test_the_rule_is_the_hosts(sanitized: Path) -> None:
    """Of texts made of what the rule is about: refused by both, or by none."""
    chance = random.Random(3)
    prompts = ["".join(chance.choices(PIECES, k=chance.randrange(1, 9))) for _ in range(4000)]
    lines = "".join(json.dumps(prompt) + "\n" for prompt in [*prompts, *PLAIN])
    done = subprocess.run([sanitized / "dq-parts", "plain"], input=lines, capture_output=True, text=True, check=True)
    refused = [line == "refused" for line in done.stdout.splitlines()]
    assert refused == [WEIGHTED.search(prompt) is not None for prompt in [*prompts, *PLAIN]]
    assert 400 < sum(refused) < 3600
    assert not any(refused[-len(PLAIN) :])


@pytest.mark.parametrize("prompt", PLAIN)
def test_other_brackets_are_text(prompt: str, program: Path, tmp_path: Path) -> None:
    """They come as far as the recording, which has another prompt."""
    done = draw(program, "guided", tmp_path, words=["--prompt", prompt])
    assert "text_encoder.ids of execution 0 is not what the recording has" in done.stderr


def test_a_negative_prompt_without_guidance(program: Path, tmp_path: Path) -> None:
    done = draw(program, "noise-in-each-step", tmp_path, "--negative-prompt", "x")
    assert_refused(done, "--negative-prompt has no effect without guidance")


def test_names_of_files(program: Path, tmp_path: Path) -> None:
    command = (program, FOLDER / "guided" / "replay.safetensors", "--bundle", FOLDER / "guided" / "bundle")
    words = arguments_of("guided")
    assert_refused(run(*command, "--out", tmp_path / "x.jpg", *words), "--out must end with .png")
    done = run(*command, "--out", tmp_path / "none" / "x.png", *words)
    assert done.returncode == 2
    assert "choose a folder with space that you may write to (--out)" in done.stderr


def test_help_has_examples(program: Path) -> None:
    done = run(program, "any", "--help")
    assert done.returncode == 0
    for option in (
        "--prompt",
        "--negative-prompt",
        "--seed",
        "--steps",
        "--guidance",
        "--threads",
        "--low-memory",
        "--latents",
        "--image",
        "--strength",
    ):
        assert option in done.stdout
    assert "Examples:" in done.stdout


@WITH_AVX2
@pytest.mark.parametrize("case", CASES)
def test_the_golden_pipelines_are_what_the_host_makes(case: str, tmp_path: Path) -> None:
    write_case(CASES[case], tmp_path)
    for path in (path for path in (FOLDER / case).rglob("*") if path.is_file()):
        ours = tmp_path / path.relative_to(FOLDER / case)
        if path.suffix == ".safetensors":
            got, wanted = load_file(ours), load_file(path)
            assert got.keys() == wanted.keys()
            for name in wanted:
                np.testing.assert_allclose(got[name], wanted[name], rtol=1e-5, atol=1e-5)
        elif path.name != "bundle.json":  # holds hashes of the tensors
            assert ours.read_bytes() == path.read_bytes()
