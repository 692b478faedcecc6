"""The properties of characters that tokenizers need, as tables for programs that have no Unicode library.

    python -m scripts.unicode_tables [--out runtime_samples]

For C++ and for Swift, the same numbers.

They are not read from the Unicode database but asked of the `tokenizers` package, one code point after the other: it is what the
programs must agree with, and its normalizers, regular expressions and graphemes are each of another version of Unicode.
"""

from __future__ import annotations

import argparse
import struct
import textwrap
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Regex, normalizers, pre_tokenizers

OUT = Path("runtime_samples")
CPP, SWIFT = "cpp_core/src", "swift_core/Sources/DQGenerate"
CODES = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
WIDTH = 130
HANGUL = range(0xAC00, 0xD7A4)


@dataclass(frozen=True)
class Tables:
    """Flat lists of integers. A range is its first and its last code point; ranges are in order."""

    letters: list[int]
    """Ranges: what \\p{L} matches."""
    numbers: list[int]
    """Ranges: what \\p{N} matches."""
    spaces: list[int]
    """Ranges: what \\s matches, and where Rust splits at white space."""
    lower: list[int]
    """First, last, distance, step: first, first + step, ..., last become lower case by adding the distance."""
    lower_long: list[int]
    """Code point and the two that its lower case is."""
    classes: list[int]
    """First, last, canonical combining class, where it is not 0."""
    singletons: list[int]
    """Code point and the one that it is canonically decomposed into."""
    pairs: list[int]
    """Code point and the two that it is canonically decomposed into, by one step. Without Hangul."""
    excluded: list[int]
    """Code points among `pairs` that are never composed."""
    extends: list[int]
    """Ranges: belongs to the grapheme of the character before it."""
    prepends: list[int]
    """Ranges: the character behind it belongs to its grapheme."""
    controls: list[int]
    """Ranges: a grapheme by itself, whatever is beside it. Only those of less than 4 bytes in UTF-8."""


def ranges(codes: Iterable[int]) -> list[int]:
    """First and last of each run of consecutive code points."""
    found: list[int] = []
    for code in codes:
        if found and found[-1] == code - 1:
            found[-1] = code
        else:
            found += [code, code]
    return found


def matched(pattern: str) -> list[int]:
    """Ranges of what a regular expression for one character matches."""
    text = "".join(map(chr, CODES))
    split = pre_tokenizers.Split(Regex(f"(?:{pattern})+"), behavior="removed", invert=True)
    return ranges(ord(c) for run, _ in split.pre_tokenize_str(text) for c in run)


def spaces() -> list[int]:
    found = matched(r"\s")
    kept = pre_tokenizers.WhitespaceSplit().pre_tokenize_str("".join(map(chr, CODES)))
    others = {c for run, _ in kept for c in run}
    assert found == ranges(code for code in CODES if chr(code) not in others), "two kinds of white space: keep both"
    return found


def lower_case() -> tuple[list[int], list[int]]:
    one, two = [], []
    lower = normalizers.Lowercase().normalize_str
    for code in CODES:
        found = [ord(c) for c in lower(chr(code))]
        if len(found) == 2:
            two += [code, *found]
        elif found != [code]:
            one.append((code, found[0] - code))
    rows: list[list[int]] = []
    for code, distance in one:
        if rows and rows[-1][2] == distance and code - rows[-1][1] in ((1, 2) if rows[-1][3] == 0 else (rows[-1][3],)):
            rows[-1][3] = code - rows[-1][1]
            rows[-1][1] = code
        else:
            rows.append([code, code, distance, 0])
    return [n for first, last, distance, step in rows for n in (first, last, distance, max(step, 1))], two


def combining_classes() -> dict[int, int]:
    """Found by order: of two marks NFD puts the one of the lower class first, if neither class is 0."""
    order = normalizers.NFD().normalize_str

    def swaps(first: str, second: str) -> bool:
        return first != second and order(first + second) == second + first

    lowest, highest = "\u0334", "\u0345"  # classes 1 and 240: each mark changes places with one of them at least
    marks = [chr(code) for code in CODES if swaps(chr(code), lowest) or swaps(highest, chr(code))]
    of_class: dict[int, str] = {}
    for mark in filter(unicodedata.combining, marks):  # not those of a later Unicode than Python's
        of_class.setdefault(unicodedata.combining(mark), mark)
    found = {}
    for mark in marks:
        alike = [c for c, other in of_class.items() if not swaps(mark, other) and not swaps(other, mark)]
        assert len(alike) == 1, hex(ord(mark))
        found[ord(mark)] = alike[0]
    return found


def canonical() -> tuple[list[int], list[int], list[int]]:
    """Decompositions into one and into two, and those of the latter that are not undone."""
    decompose, compose = normalizers.NFD().normalize_str, normalizers.NFC().normalize_str
    whole = {code: decompose(chr(code)) for code in CODES if code not in HANGUL and decompose(chr(code)) != chr(code)}
    composite = {parts: code for code, parts in whole.items() if len(parts) > 1}
    singletons, pairs, excluded = [], [], []
    for code, parts in whole.items():
        if len(parts) == 1:
            singletons += [code, ord(parts)]
            continue
        head = compose(parts[:-1])  # one character, unless this one is excluded from composition
        pairs += [code, ord(head) if len(head) == 1 else composite[parts[:-1]], ord(parts[-1])]
        if compose(parts) != chr(code):
            excluded.append(code)
    return singletons, pairs, excluded


def grapheme_counter() -> Callable[[str], int]:
    """How many graphemes a text of less than 6 bytes has, as the normalizer of SentencePiece's models splits it.

    That one replaces each grapheme as one; here every first byte is replaced by one letter.
    """
    units = [0] * 1024
    units[0] = 256 << 10  # children are at 256 ^ byte
    for byte in range(1, 256):
        at = 256 ^ byte
        units[at] = (at ^ 512) << 10 | 1 << 8 | byte  # its value is at 512: the first replacement
    data = struct.pack("<I1024I", 4 * len(units), *units) + b"B\0"
    normalizer = normalizers.Precompiled(data)

    def count(text: str) -> int:
        found = normalizer.normalize_str(text)
        assert set(found) == {"B"}
        return len(found)

    return count


def graphemes() -> tuple[list[int], list[int], list[int]]:
    """Those that extend, those that are prepended, and controls."""
    count, mark = grapheme_counter(), "\u0301"
    codes = CODES[1:]  # a NUL ends every search
    extends = ranges(code for code in codes if count("A" + chr(code)) == 1)
    prepends = ranges(code for code in codes if count(chr(code) + "A") == 1)
    controls = ranges(code for code in codes if code < 0x10000 and count(chr(code) + mark) == 2)
    return extends, prepends, controls


def all_tables() -> Tables:
    classes = combining_classes()
    rows: list[list[int]] = []
    for code, number in classes.items():
        if rows and rows[-1][1:] == [code - 1, number]:
            rows[-1][1] = code
        else:
            rows.append([code, code, number])
    singletons, pairs, excluded = canonical()
    lower, lower_long = lower_case()
    extends, prepends, controls = graphemes()
    return Tables(
        letters=matched(r"\p{L}"),
        numbers=matched(r"\p{N}"),
        spaces=spaces(),
        lower=lower,
        lower_long=lower_long,
        classes=[n for row in rows for n in row],
        singletons=singletons,
        pairs=pairs,
        excluded=excluded,
        extends=extends,
        prepends=prepends,
        controls=controls,
    )


FILES = {
    "unicode_properties.cpp": ("letters", "numbers", "spaces", "lower", "lower_long", "classes"),
    "unicode_singletons.cpp": ("singletons",),
    "unicode_pairs.cpp": ("pairs", "excluded"),
    "unicode_graphemes.cpp": ("extends", "prepends", "controls"),
}


def cpp(names: Iterable[str], tables: Tables) -> str:
    """A source file that defines what unicode_tables.h declares."""
    text = "// Written by scripts/unicode_tables.py, which says what the numbers are. Do not change it by hand.\n"
    text += '#include <iterator>\n\n#include "unicode_tables.h"\n\nnamespace dq::unicode {\n\n'
    for name in names:
        words = ", ".join(f"0x{n & 0xFFFFFFFF:X}" if n not in range(10) else str(n) for n in getattr(tables, name))
        body = "\n".join(textwrap.wrap(words, WIDTH))
        text += f"static constexpr std::uint32_t numbers_of_{name}[] = {{\n{body}}};\n"
        text += f"const Table {name}{{numbers_of_{name}, std::size(numbers_of_{name})}};\n\n"
    return text + "}  // namespace dq::unicode\n"


SWIFT_FILES = {
    "UnicodeProperties.swift": FILES["unicode_properties.cpp"],
    "UnicodeSingletons.swift": FILES["unicode_singletons.cpp"],
    "UnicodePairs.swift": FILES["unicode_pairs.cpp"],
    "UnicodeGraphemes.swift": FILES["unicode_graphemes.cpp"],
}


def swift(names: Iterable[str], tables: Tables) -> str:
    """A source file that extends UnicodeTables; text, since a compiler takes minutes for as many numbers."""
    text = "// Written by scripts/unicode_tables.py, which says what the numbers are. Do not change it by hand.\n"
    for name in names:
        words = " ".join(f"{n & 0xFFFFFFFF:X}" for n in getattr(tables, name))
        body = textwrap.indent("\n".join(textwrap.wrap(words, WIDTH - 8)), " " * 8)
        member = name.split("_")[0] + "".join(map(str.title, name.split("_")[1:]))
        text += (
            f'\nextension UnicodeTables {{\n    static let {member} = read(\n        """\n{body}\n        """)\n}}\n'
        )
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    out, tables = parser.parse_args().out, all_tables()
    for file, names in FILES.items():
        (out / CPP / file).write_text(cpp(names, tables))
    for file, names in SWIFT_FILES.items():
        (out / SWIFT / file).write_text(swift(names, tables))


if __name__ == "__main__":
    main()
