"""The one error that these programs report: a line that says what was got, what is allowed and what to do; exit code 2."""

EXPORT_AGAIN = "export the bundle again and copy all of it"


class Refused(Exception):
    """Bad input, or a runtime that refuses. The text is one line."""


def one_line(text: object, most: int = 400) -> str:
    """Any text without line breaks and without what a terminal would obey, cut off after ``most`` characters."""
    line = " ".join(str(text).split())[:most]
    return "".join(character if character.isprintable() else "?" for character in line)
