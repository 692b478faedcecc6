"""The page of a verdict stands alone, and nothing that a report says steers it or the terminal."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

import pytest

from dq_toolchain.toolchain.errors import ToolchainError
from dq_toolchain.toolchain.render.page import _site, render, render_comparison, write_page
from dq_toolchain.toolchain.verdict.judge import validate
from dq_toolchain.toolchain.verdict.result import WORST
from tests.toolchain.reports import edit, said_by


def test_the_page_stands_alone_and_is_the_same_each_time(good: Path, tmp_path: Path) -> None:
    verdict = validate(good / "report")
    text = render(verdict)
    assert text == render(validate(good / "report"))
    assert text.count("data:image/png;base64,") == 4 + WORST
    assert text.count("data:image/svg+xml;base64,") == 2
    assert "http" not in re.sub(r"data:[^\"]*", "", text)
    assert "<script" not in text
    assert "a &lt;test&gt; device" in text  # what a report says cannot become markup
    assert "statistics need float" in text
    write_page(tmp_path / "out.html", [verdict])
    assert (tmp_path / "out.html").read_text() == text


def test_what_a_report_says_steers_neither_terminal_nor_page(bundle: Path) -> None:
    text = "\x1b]0;pwn\x07\x1b[31mRED\u202e [/red] [bold]$x$ <b>"
    edit(
        bundle / "report" / "report.json",
        lambda d: d.update(
            device=text, compute_unit=text, runtime={"name": text, "version": text}, versions={text: text}
        ),
    )
    verdict = validate(bundle / "report")
    page, said = render(verdict), said_by(verdict)
    for shown in (page, said, render_comparison([verdict, verdict])):
        assert not set("\x1b\x07\u202e") & set(shown)
    assert "[/red] [bold]" in said
    assert "<b>" not in page.split("<body>")[1].replace("<b>fidelity", "").replace("<b>conformance", "").replace(
        "<b>claims", ""
    )


def test_a_site_with_gaps_still_has_a_row() -> None:
    assert _site({"site": "a", "weight_bits": None, "range": [[0.5, 1], [None, "high"], 3]})["range"] == [
        "0.5 to 1",
        "n/a to n/a",
        "n/a to n/a",
    ]
    assert _site({}) == dict.fromkeys(("site", "kind", "weight_bits", "activation_bits", "scheme"), "") | {
        "range": ["n/a"]
    }


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_page_replaces_nothing_but_a_regular_file(good: Path, tmp_path: Path, kind: str) -> None:
    target, page = tmp_path / "precious.txt", tmp_path / "page.html"
    target.write_text("x")
    if kind == "link":
        page.symlink_to(target)
    else:
        os.mkfifo(page)
    before = page.lstat()
    with contextlib.suppress(ToolchainError):  # refused, or written through the link
        write_page(page, [validate(good / "report")])
    assert (page.lstat().st_mode, page.lstat().st_ino) == (before.st_mode, before.st_ino)
