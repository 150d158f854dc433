"""Text from outside for logs and terminals."""

from __future__ import annotations

MOST_CHARACTERS = 2000


def printable(text: str, most: int = MOST_CHARACTERS) -> str:
    r"""Escape control, format and unpaired surrogate characters, line breaks too; cut after `most` characters.

    >>> printable("captures\n[ERROR] forged \x1b[2J")
    'captures\\n[ERROR] forged \\x1b[2J'
    """
    cut = f"{text[:most]} ... ({len(text)} characters)" if len(text) > most else text
    if cut.isprintable():
        return cut
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
