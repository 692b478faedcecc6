"""Mutations that know the structure of what they damage: JSON, TOML and safetensors, with hashes and seals made good again.

Each draws from hypothesis, so that a failing input is shrunk and comes again.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

RAW = "@raw@"
"""Strings that begin so stand for JSON that no writer writes: what follows is put in without its quotes."""
NUMBERS = (None, True, False, 0, 1, -1, 2, 0.5, -0.0, 1e30, -1e300, 5e-324, 2**31, 2**53, 2**63 - 1, -(2**63))
NAMES = (
    "",
    "x",
    "0",
    "nan",
    "../evil",
    "/etc/passwd",
    "C:\\x",
    "a/../b",
    "two\nlines",
    "%s%n",
    "<script>",
    "{{ 7 * 7 }}",
)
ESCAPES = ("[/red] the fox", "[bold]x", "\x1b]0;pwn\x07", "\x1b[31mred", "\u202egnp.exe", "\x00", "\x9b31m", "\u2028")
TOKENS = ("1e999", "-1e999", "NaN", "Infinity", "-Infinity", "9" * 30, "1" + "0" * 400, '"\\ud800"', "01", "'a'", "1.0")
"""JSON, or not, that no writer writes."""
ODD: tuple[Any, ...] = (
    *NUMBERS, *NAMES, *ESCAPES, *(RAW + token for token in TOKENS), *(RAW + "[" * deep + "]" * deep for deep in (80, 150, 20_000)),
    [], {}, [[]], [None], [[], []], [1] * 300, {"a": {"b": {"c": []}}}, "a" * 3000, "é" * 300,
)  # fmt: skip
Path_ = tuple[str | int, ...]


def places(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """Every place in a JSON value but the value itself; of long lists the first two and the last."""
    if isinstance(value, dict):
        keys: list[str | int] = list(value)
    elif isinstance(value, list):
        keys = list(range(len(value)))
        keys = keys if len(keys) < 4 else [0, 1, len(keys) - 1]
    else:
        return
    for key in keys:
        yield (*path, key)
        yield from places(value[key], (*path, key))


def values() -> st.SearchStrategy[Any]:
    """Something that does not belong where it is put."""
    return st.one_of(
        st.sampled_from(ODD),
        st.integers(-(2**40), 2**40),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=20),
    )


@st.composite
def damaged(draw: st.DrawFn, good: Any) -> Any:
    """A copy of a JSON value with one to three changes."""
    data = json.loads(json.dumps(good))
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        where = list(places(data))
        if not where:
            return draw(values())
        _change(draw, data, draw(st.sampled_from(where)))
    return data


def _change(draw: st.DrawFn, data: Any, path: Path_) -> None:
    for key in path[:-1]:
        data = data[key]
    key = path[-1]
    action = draw(st.sampled_from(["put", "put", "put", "put", "drop", "add", "wrap", "repeat", "empty", "scale"]))
    found = data[key]
    if action == "put":
        data[key] = draw(values())
    elif action == "drop":
        del data[key]
    elif action == "wrap":
        data[key] = draw(st.sampled_from([[found], {"a": found}, str(found)]))
    elif action == "empty":
        data[key] = type(found)() if isinstance(found, list | dict | str) else None
    elif action == "scale" and isinstance(found, int | float):
        data[key] = found * draw(st.sampled_from([-1, 0, 2, 1e6, 1e20]))
    elif isinstance(data, list):
        data.insert(draw(st.integers(0, len(data))), found if action == "repeat" else draw(values()))
    else:
        data[draw(st.sampled_from(["x", "__class__", "", "\x1b", f"{RAW}{key}", "a" * 2000]))] = found


def text_of(data: Any) -> str:
    """JSON text, with what stands behind ``RAW`` as it is: numbers that overflow, and keys that come twice."""
    if isinstance(data, str):
        return data.removeprefix(RAW) if data.startswith(RAW) else json.dumps(data)
    if isinstance(data, dict):
        return (
            "{"
            + ", ".join(f"{json.dumps(str(key).removeprefix(RAW))}: {text_of(value)}" for key, value in data.items())
            + "}"
        )
    if isinstance(data, list):
        return "[" + ", ".join(map(text_of, data)) + "]"
    return json.dumps(data)


@st.composite
def torn(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes with a cut, a flip, an insertion, or another encoding."""
    action = draw(st.sampled_from(["cut", "flip", "flip", "insert", "mark", "utf-16", "double", "nothing", "pointer"]))
    at = draw(st.integers(0, max(len(data) - 1, 0)))
    if action == "cut":
        return data[:at]
    if action == "flip" and data:
        return data[:at] + bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]) + data[at + 1 :]
    if action == "insert":
        return data[:at] + draw(st.binary(min_size=1, max_size=12)) + data[at:]
    if action == "utf-16":
        return data.decode("utf-8", "replace").encode("utf-16")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    return {"mark": b"\xef\xbb\xbf" + data, "double": data + data, "nothing": b"", "pointer": pointer}.get(action, data)


@st.composite
def damaged_tensors(draw: st.DrawFn, data: bytes) -> bytes:
    """A safetensors file whose header, or whose tensors, are changed; often still one that can be read."""
    length = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    action = draw(
        st.sampled_from(["header", "header", "retype", "retype", "nan", "nan", "reshape", "rename", "torn", "length"])
    )
    if action == "torn":
        return draw(torn(data))
    if action == "length":
        return (
            struct.pack("<Q", draw(st.sampled_from([0, 1, length - 1, length + 1, 2**40, 2**63, 2**64 - 1]))) + data[8:]
        )
    name = draw(st.sampled_from(sorted(set(header) - {"__metadata__"})))
    row = header[name]
    if action == "header":
        header = draw(damaged(header))
    elif action == "retype":
        row["dtype"] = draw(
            st.sampled_from(["F64", "F16", "BF16", "I64", "I32", "I8", "U8", "BOOL", "F8_E4M3", "C64", "F4"])
        )
        _refit(row, draw)
    elif action == "reshape":
        count = 1
        for side in row["shape"]:
            count *= side
        row["shape"] = draw(
            st.sampled_from(
                [[count], [1, count], [], [0], [*row["shape"], 1], row["shape"][::-1], [-1, -count], [1] * 70 + [count]]
            )
        )
    elif action == "rename":
        header[
            draw(st.sampled_from(["x", "", "\x1b[31m", "cond.x", "uncond.\u202e", "cond.", "a" * 3000, "start"]))
        ] = header.pop(name)
    else:
        first, last = row["data_offsets"]
        size = min(last - first, 8)
        odd = draw(
            st.sampled_from(
                [
                    b"\xff" * 8,
                    b"\x00\x00\x80\x7f" * 2,
                    b"\x00\x00\x80\xff" * 2,
                    b"\x00" * 8,
                    b"\xff\xff\x7f\x7f" * 2,
                    b"\x80" * 8,
                ]
            )
        )
        body = body[:first] + odd[:size] + body[first + size :]
    text = text_of(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + body


SIZES = {"F64": 8, "I64": 8, "C64": 8, "I32": 4, "F16": 2, "BF16": 2, "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1}


def _refit(row: dict[str, Any], draw: st.DrawFn) -> None:
    """A shape whose bytes are those that the tensor had, if it is wanted and can be."""
    first, last = row["data_offsets"]
    size = SIZES.get(row["dtype"], 0)
    if size and draw(st.booleans()) and (last - first) % size == 0:
        row["shape"] = [(last - first) // size]


@st.composite
def damaged_toml(draw: st.DrawFn, good: bytes) -> bytes:
    """A recipe with a line changed, dropped, doubled, or torn."""
    if draw(st.integers(0, 4)) == 0:
        return draw(torn(good))
    lines = good.decode().strip().split("\n")
    at = draw(st.integers(0, len(lines) - 1))
    key = lines[at].split("=")[0]
    value = draw(
        st.sampled_from(
            [
                "-1",
                "0",
                "1e999",
                "nan",
                "inf",
                "9" * 30,
                '"\\u001b[31m"',
                "[]",
                "{}",
                "[[]]",
                "true",
                '"../evil"',
                '"[/red]"',
                "1979-05-27",
                "'''\n'''",
                "[" * 200 + "]" * 200,
                "[" * 50_000,
                '"' + "x" * 4000 + '"',
                "",
                "0x10",
                "\x00",
            ]
        )
    )
    return "\n".join(
        [
            *lines[:at],
            *draw(
                st.sampled_from([[f"{key}= {value}"], [], [lines[at]] * 2, [f"{value}"], [f"x = {value}", lines[at]]])
            ),
            *lines[at + 1 :],
        ]
    ).encode()
