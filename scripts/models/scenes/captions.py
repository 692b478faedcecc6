"""A scene in words, in several phrasings; what is left out is left to the model."""

from __future__ import annotations

import random

from scripts.models.scenes.world import Scene, Thing

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ONE = (
    "{a}{place} on {ab} background",
    "{a}{place} on {b}",
    "{n}{place}, {b} background",
    "{ab} background with {a}{place}",
    "a picture of {a}{place} on {ab} background",
    "{n}{place} on {b}",
)
BESIDE = (
    "{a} left of {a2} on {ab} background",
    "{a2} right of {a} on {ab} background",
    "{a} to the left of {a2} on {b}",
    "{a2} to the right of {a} on {b}",
    "{a} on the left, {a2} on the right, {b} background",
    "{a} next to {a2} on {ab} background",
)
STACKED = (
    "{a} above {a2} on {ab} background",
    "{a2} below {a} on {ab} background",
    "{a2} under {a} on {b}",
    "{a} at the top, {a2} at the bottom, {b} background",
)
NO_BACKGROUND = {1: "{a}{place}", 2: "{a} and {a2}"}
AT = {
    "middle": ("", "", " in the middle", " in the center"),
    "left": (" on the left", " at the left"),
    "right": (" on the right", " at the right"),
    "top": (" at the top",),
    "bottom": (" at the bottom",),
}
LEFT_OUT = 0.05
"""How often a colour, a size or the background is not said."""


def caption(scene: Scene, draw: random.Random, *, whole: bool = False) -> str:
    """One of the sentences that say the scene; ``whole``: nothing is left out."""
    left_out = 0.0 if whole else LEFT_OUT
    nouns = [_noun(thing, draw, left_out) for thing in scene.things]
    templates = ONE if len(nouns) == 1 else BESIDE if scene.place == "beside" else STACKED
    template = NO_BACKGROUND[len(nouns)] if draw.random() < left_out else draw.choice(templates)
    fields = {"n": nouns[0], "a": _with_article(nouns[0]), "a2": _with_article(nouns[-1])}
    fields |= {"b": scene.background, "ab": _with_article(scene.background)}
    fields["place"] = draw.choice(AT[scene.place]) if len(nouns) == 1 else ""
    return template.format(**fields)


def _noun(thing: Thing, draw: random.Random, left_out: float) -> str:
    number = draw.choice((WORDS[thing.digit], WORDS[thing.digit], str(thing.digit)))
    size = "" if draw.random() < left_out else thing.size
    colour = "" if draw.random() < left_out else thing.colour
    return " ".join(word for word in (size, colour, number) if word)


def _with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou8" and noun != "one" else f"a {noun}"
