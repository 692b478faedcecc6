"""Texts that tokenizers disagree on, made from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator

WORDS = [
    "a",
    "photo",
    "of",
    "an",
    "astronaut",
    "riding",
    "horse",
    "on",
    "the",
    "moon",
    "high",
    "quality",
    "8k",
    "trending",
    "don't",
    "it's",
    "we've",
    "I'll",
    "you're",
    "HE'S",
    "they'd",
    "I'M",
    "naïve",
    "café",
    "Straße",
    "İstanbul",
    "ΟΔΥΣΣΕΥΣ",
    "ﬁne",
    "№5",
    "½",
    "²",
    "1024x768",
    "3.14",
    "-5",
    "$100",
    "50%",
    "C++",
    "e.g.",
    "#tag",
    "@user",
    "http://a.b/c?d=e&f",
    "日本語",
    "東京",
    "한국어",
    "각",
    "מזל",
    "السَّلامُ",
    "नमस्ते",
    "ไทย",
    "Привет",
]
SPACES = [
    "\t",
    "\n",
    "\r",
    "\r\n",
    "\v",
    "\f",
    " ",
    "  ",
    *map(chr, (0x85, 0xA0, 0x1680, 0x180E, 0x2000, 0x2003, 0x200A)),
]
SPACES += [*map(chr, (0x200B, 0x2028, 0x2029, 0x202F, 0x205F, 0x2060, 0x3000, 0xFEFF))]
EMOJI = ["👩‍🚀", "👨‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "❤️", "❤", "1️⃣", "🧑🏿‍🦱", "☺︎", "🫠", "©️", "®", "™"]
CONTROLS = [*map(chr, (*range(1, 32), *range(127, 160))), "\u200d", "\u200e", "\u202e", "\u00ad", "\U000e0041"]
MARKS = [*map(chr, (*range(0x300, 0x370), *range(0x591, 0x5C8), *range(0x64B, 0x660), *range(0x93C, 0x950)))]
MARKS += [*map(chr, (0x3099, 0x309A, 0x1DC4, 0x20D0, 0x20E3, 0xFE0F, 0x0E38, 0x0E48, 0x0F71, 0x0F72, 0x0F74, 0x1D165))]
JAMO = [*map(chr, (*range(0x1100, 0x1113), *range(0x1161, 0x1176), *range(0x11A7, 0x11C3), 0xAC00, 0xAC01, 0xD7A3))]
SIGNS = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~''''" + "“”‘’…—–•·«»¡¿")
SPECIAL = ["<|startoftext|>", "<|endoftext|>", "<|ENDOFTEXT|>", "<|StartOfText|>", "<|start", "text|>", "<pad>", "</s>"]
SPECIAL += ["<unk>", "<extra_id_0>", "<extra_id_99>", "▁", "</w>", "'S", "'LL", "'"]
PLANES: tuple[tuple[int, int], ...] = (
    (0x20, 0x7F),
    (0xA0, 0x250),
    (0x250, 0x3000),
    (0x3000, 0xD800),
    (0xE000, 0x10000),
    (0x10000, 0x20000),
)
PLANES += ((0x20000, 0x32000), (0xE0000, 0x110000))


def _character(chance: random.Random) -> str:
    return chr(chance.randrange(*chance.choice(PLANES)))


def _atom(chance: random.Random) -> str:
    kind = chance.randrange(12)
    if kind < 3:
        word = chance.choice(WORDS)
        return chance.choice((word, word, word.upper(), word.title(), word.swapcase()))
    if kind == 3:
        return chance.choice(SPACES) * chance.choice((1, 1, 2, 5))
    if kind == 4:
        return chance.choice(EMOJI) * chance.choice((1, 1, 3))
    if kind == 5:
        return chance.choice((_character(chance), *WORDS)) + "".join(chance.choices(MARKS, k=chance.randrange(1, 5)))
    if kind == 6:
        return "".join(chance.choices(JAMO, k=chance.randrange(1, 5)))
    if kind == 7:
        return "".join(chance.choices(SIGNS, k=chance.randrange(1, 4)))
    if kind == 8:
        return chance.choice((*SPECIAL, *CONTROLS))
    if kind == 9:
        return str(chance.getrandbits(chance.choice((4, 16, 64))))
    return "".join(_character(chance) for _ in range(chance.randrange(1, 6)))


def texts(count: int, seed: int) -> Iterator[str]:
    """Short ones mostly; one in fifty is far beyond the length of a prompt."""
    chance = random.Random(seed)
    for number in range(count):
        length = 150 if number % 50 == 0 else chance.randrange(0, 12)
        between = chance.choice(("", " ", " ", " "))
        yield between.join(_atom(chance) for _ in range(length))
