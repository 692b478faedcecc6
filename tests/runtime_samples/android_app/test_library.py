"""The library of the Android app, driven by Java as the app drives it: the golden pictures, progress, and how a drawing ends."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scripts.golden.generate import CASES

from tests.runtime_samples.android_app.jvm import Jvm, pixels
from tests.runtime_samples.cpp_core.conftest import GOLDEN
from tests.runtime_samples.locales import comma

FOLDER = GOLDEN / "generate"
LEFT_OUT = {
    "guided": ["na\u0131 \u0308 ve !"],
    "two-encoders": ["the red cat high quality photo of the red cat"] * 2,
    "noise-in-each-step": [],
}
"""What the warnings say of the golden prompts."""
REFUSED = [
    (["--prompt", "a (red:1.3) ball"], "the prompt: weights and embeddings such as '(red:1.3)' are not supported"),
    (["--prompt", "a", "--negative-prompt", "<bad>"], "the negative prompt: weights and embeddings such as '<bad>'"),
    ([], "--prompt is missing: this model draws what a text says"),
    (["--prompt", "a", "--label", "3"], "this model takes no class"),
    (["--prompt", "a", "--label", "-1"], "the label must be a number from 0, got -1; change it"),
    (["--prompt", "a", "--seed", "-1"], "the seed must be a number from 0, got -1; change it"),
    (["--prompt", "a", "--steps", "9"], "got 9 steps, guidance 2.5, the bundle holds 4 steps, guidance 2.5"),
    (["--prompt", "a", "--steps", "0"], "the steps must be a number from 1, got 0; change it"),
    (["--prompt", "a", "--guidance", "NaN"], "the guidance must be a number, got NaN; change it"),
    (["--prompt", "a", "--guidance", "3"], "got 4 steps, guidance 3, the bundle holds 4 steps, guidance 2.5"),
    (["--prompt", "\U0001f600 ((x"], "such as '(('"),
]
"""Of the bundle "guided"."""


def words_of(case: str) -> list[str]:
    words: list[str] = json.loads((FOLDER / case / "arguments.json").read_text())
    return words


def calls_of(case: str) -> int:
    return len(json.loads((FOLDER / case / "bundle" / "bundle.json").read_text())["table"]["timesteps"])


def test_the_pictures_are_the_hosts(replaying: Jvm, tmp_path: Path) -> None:
    runs = [(case, memory, tmp_path / f"{case}-{memory}") for case in CASES for memory in ("false", "true")]
    printed = replaying.run(
        *(
            ("draw", FOLDER / case / "bundle", out, *words_of(case), "--low-memory", memory)
            for case, memory, out in runs
        )
    )
    for (case, _, out), lines in zip(runs, printed, strict=True):
        host = np.asarray(Image.open(FOLDER / case / "expected" / "picture.png").convert("RGB"))
        np.testing.assert_array_equal(pixels(out), host)
        told = [tuple(map(int, line.split()[1:])) for line in lines if line.startswith("progress")]
        calls = calls_of(case)
        assert told[0] == (0, 0)
        assert [pair for pair in told if pair[0] > 0] == [(k + 1, calls) for k in range(calls)]
        assert told == sorted(told)
        warnings = [line for line in lines if line.startswith("warning")]
        assert lines == [*(f"progress {a} {b}" for a, b in told), *warnings, "times true memory true"]
        assert [re.split("left out: ", line)[1] for line in warnings] == LEFT_OUT[case]


def test_wishes_that_cannot_be_fulfilled(replaying: Jvm, tmp_path: Path) -> None:
    out = tmp_path / "out"
    printed = replaying.run(*(("draw", FOLDER / "guided" / "bundle", out, *options) for options, _ in REFUSED))
    for (*told, last), (_, text) in zip(printed, REFUSED, strict=True):
        assert last.startswith("DrawingException: ")
        assert text in last
        assert all(line.startswith("progress 0 ") for line in told)
    assert not out.exists()


def test_bundles_that_cannot_be_drawn_with(replaying: Jvm, tmp_path: Path) -> None:
    """In JNI's own strings an emoji has another form than in UTF-8; -Xcheck:jni says so."""
    damaged = Path(shutil.copytree(FOLDER / "guided" / "bundle", tmp_path / "\U0001f600 ö"))
    (damaged / "parts" / "decoder.bin").write_text("other")
    none = tmp_path / "none\U0001f600"
    places = [(folder, tmp_path / "out", "--prompt", "x") for folder in (damaged, none)]
    (_, changed), (_, missing) = replaying.run(*(("draw", *words) for words in places))
    assert changed.startswith(f"DrawingException: {damaged / 'bundle.json'}: ")
    assert "parts/decoder.bin was changed after it was written" in changed
    assert missing.startswith(f"DrawingException: {none / 'bundle.json'}")


def test_a_drawing_is_stopped_where_the_progress_says_so(replaying: Jvm, tmp_path: Path) -> None:
    start = ("draw", FOLDER / "guided" / "bundle", tmp_path / "out", *words_of("guided"))
    ends = {"--stop-at": "CancellationException", "--throw-at": "IllegalStateException: from the progress"}
    wanted = [(option, call) for option in ends for call in (0, 1, 3, 7)]
    printed = replaying.run(*((*start, option, str(call)) for option, call in wanted))
    for (option, call), lines in zip(wanted, printed, strict=True):
        assert lines[-1] == ends[option]
        assert len(lines) == call + 2, "nothing is told after the end"
    assert not (tmp_path / "out").exists()


def test_a_second_drawing_is_refused_while_one_goes_on(replaying: Jvm, tmp_path: Path) -> None:
    """And harms neither it nor the next one."""
    outs = [tmp_path / "first", tmp_path / "second"]
    start = [("draw", FOLDER / "guided" / "bundle", out, *words_of("guided")) for out in outs]
    first, second = replaying.run((*start[0], "--second-at", "3"), start[1])
    refused = "second: another picture is being drawn, allowed is one at a time; wait for its end, or stop it first"
    assert first.count(refused) == 1
    assert [line for line in first if line != refused] == second
    np.testing.assert_array_equal(pixels(outs[0]), pixels(outs[1]))


def test_a_locale_with_a_decimal_comma(
    replaying: Jvm, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """Java sets the locale of the person for the whole process, the library included."""
    bundle, out = FOLDER / "guided" / "bundle", tmp_path / "out"
    lines = replaying.run(
        ("inspect", bundle),
        ("draw", bundle, out, *words_of("guided")),
        ("draw", bundle, out, "--prompt", "a", "--guidance", "3.5"),
        environment=comma(tmp_path_factory),
    )
    assert lines[0] == ["sampling 4 2.5 true", "takes prompt"]
    host = np.asarray(Image.open(FOLDER / "guided" / "expected" / "picture.png").convert("RGB"))
    np.testing.assert_array_equal(pixels(out), host)
    assert "got 4 steps, guidance 3.5, the bundle holds 4 steps, guidance 2.5" in lines[2][-1]


def test_what_bundles_offer(replaying: Jvm, tmp_path: Path) -> None:
    """The last has several samplers, and a class in the place of a prompt."""
    labels = Path(shutil.copytree(GOLDEN / "samplers" / "two-steps" / "bundle", tmp_path / "labels"))
    pipeline = json.loads((FOLDER / "guided" / "bundle" / "pipeline.json").read_text())
    pipeline |= {"encoders": [], "tokenizers": [], "conditioning": {}}
    (labels / "pipeline.json").write_text(json.dumps(pipeline))
    text, (*pairs, takes) = replaying.run(("inspect", FOLDER / "guided" / "bundle"), ("inspect", labels))
    assert text == ["sampling 4 2.5 true", "takes prompt"]
    assert takes == "takes label"
    data = json.loads((labels / "bundle.json").read_text())
    wanted = [(row["steps"], float(row["guidance"])) for row in (data, *data["samplings"])]
    assert len(wanted) > 1
    assert pairs == [f"sampling {steps} {scale} {'true' if scale != 1 else 'false'}" for steps, scale in wanted]


def test_what_is_no_bundle_of_a_pipeline(replaying: Jvm, tmp_path: Path) -> None:
    alone = GOLDEN / "ddim-guided" / "bundle"
    (tmp_path / "bundle.json").write_text("{")
    (without,), (broken,) = replaying.run(("inspect", alone), ("inspect", tmp_path))
    assert (
        without
        == f"DrawingException: {alone} holds a network alone, without text encoder and decoder; export the whole pipeline"
    )
    assert broken.startswith(f"DrawingException: {tmp_path / 'bundle.json'}: ")
    assert broken.endswith("run `dq-toolchain export` again")
