"""Where a run with a picture begins, by its strength: the host's step, and what is refused."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path

import pytest

from tests.runtime_samples.cpp_core.conftest import assert_refused, run
from tests.runtime_samples.cpp_core.test_generate_image import FOLDER, program

__all__ = ["program"]

WORDS = {
    "strength without a picture": (["--strength", "0.5"], False, "--strength says how much of a picture is changed, and"),
    "strength 0": (["--strength", "0"], True, "--strength must be above 0 and at most 1, got 0; change it"),
    "strength above 1": (["--strength", "1.01"], True, "--strength must be above 0 and at most 1, got 1.01"),
    "no number": (["--strength", "x"], True, "--strength must be a number within a million, got 'x'"),
    "not a number": (["--strength", "nan"], True, "--strength must be a number within a million, got 'nan'"),
    "no step": (["--strength", "0.2"], True, "--strength 0.2 leaves none of 4 steps, allowed is 0.25 or more; raise it, or take"),
}  # fmt: skip


@pytest.mark.parametrize("name", WORDS)
def test_bad_strengths(name: str, program: Path, tmp_path: Path) -> None:
    words, picture, said = WORDS[name]
    folder = FOLDER / "image"
    image = ("--image", folder / "image.png") if picture else ()
    given = ("--bundle", folder / "bundle", "--out", tmp_path / "picture.png", "--prompt", "a", *image, *words)
    assert_refused(run(program, folder / "replay.safetensors", *given), said)


@pytest.mark.parametrize("rounds", ["up", "down"])
def test_the_first_step_is_the_hosts(rounds: str, sanitized: Path) -> None:
    """Of all step counts and strengths: floor in float64, as the pipelines of diffusers reckon."""
    pairs = [(steps, n / 1000) for steps in (1, 2, 3, 7, 20, 25, 30, 50, 100) for n in range(1, 1001)]

    def first(steps: int, strength: float) -> int:
        if rounds == "up":
            return steps - min(int(steps * strength), steps)
        return math.floor(steps - min(steps * strength, steps))

    lines = "".join(f"{steps} {strength!r}\n" for steps, strength in pairs)
    done = subprocess.run(
        [sanitized / "dq-parts", "begin", rounds], input=lines, capture_output=True, text=True, check=True
    )
    assert [int(line) for line in done.stdout.split()] == [first(*pair) for pair in pairs]
