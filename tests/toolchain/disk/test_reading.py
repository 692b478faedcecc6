"""Every malformed file ends in one short line, and none takes memory or time first."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from dq_toolchain.toolchain.console.printable import printable
from dq_toolchain.toolchain.disk.reading import DEEPEST, read_json, read_text, read_toml
from dq_toolchain.toolchain.errors import RecipeError, ToolchainError

MALFORMED = {
    "deep": ("[" * 200_000, "nested too deep"),
    "deeper than allowed": ('{"a":' * (DEEPEST + 1) + "1" + "}" * (DEEPEST + 1), "nested too deep"),
    "list": ("[1]", "holds a list, expected a JSON object"),
    "twice": ('{"name": 1, "name": 2}', "key 'name' twice"),
    "NaN": ('{"a": NaN}', "NaN is no JSON number"),
    "infinity": ('{"a": [-Infinity]}', "-Infinity is no JSON number"),
    "float": ('{"a": 1e999}', "larger than any float"),
    "integer": (f'{{"a": 1{"0" * 400}}}', "larger than 64 bits"),
    "surrogate": ('{"a": "\\ud800"}', "surrogates not allowed"),
    "cut": ('{"a": ', "not valid JSON"),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_json_is_one_short_line(kind: str, tmp_path: Path) -> None:
    text, message = MALFORMED[kind]
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=message) as caught:
        read_json(path, error=RecipeError, remedy="write it again")
    assert str(caught.value).endswith("; write it again")
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


def test_infinity_of_a_config_is_read_where_it_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"lambda_min_clipped": -Infinity}')
    data = read_json(tmp_path / "x.json", error=ToolchainError, remedy="", finite=False)
    assert data == {"lambda_min_clipped": -math.inf}


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    for name, content in (("x.txt", "a fox\n"), ("x.json", json.dumps({"a": "é"})), ("x.toml", "[a]\nb = 1\n")):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert read_text(tmp_path / "x.txt", error=ToolchainError, remedy="") == "a fox\n"
    assert read_json(tmp_path / "x.json", error=ToolchainError, remedy="") == {"a": "é"}
    assert read_toml(tmp_path / "x.toml", error=ToolchainError, remedy="") == {"a": {"b": 1}}


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ToolchainError, match="no regular file"):
        read_text(tmp_path / "fifo", error=ToolchainError, remedy="")
    with pytest.raises(ToolchainError, match=r"cannot read .*; look there"):
        read_text(tmp_path, error=ToolchainError, remedy="look there")


def test_size_is_bounded_before_the_file_is_read(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(2**40)  # takes no room on disk
    with pytest.raises(ToolchainError, match="1,099,511,627,776 bytes, allowed are 1,000"):
        read_text(tmp_path / "large", error=ToolchainError, remedy="", largest=1000)


def test_deep_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("a=" + "[" * 100_000)
    with pytest.raises(RecipeError, match="not valid TOML"):
        read_toml(tmp_path / "x.toml", error=RecipeError, remedy="")


def test_printable_text_moves_no_cursor_and_is_short() -> None:
    assert printable("\x1b]0;pwn\x07\u202eevil\n next") == r"\x1b]0;pwn\x07\u202eevil next"
    assert printable("Łódź 東京 🦊") == "Łódź 東京 🦊"
    assert len(printable("x" * 10**6)) <= 500
