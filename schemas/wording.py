"""How values read in messages: counts, and texts of others that must not act on a terminal."""

from __future__ import annotations

import json
import shlex
import unicodedata
from collections.abc import Iterable

__all__ = ["counted", "one_line", "printable", "printable_json", "shell_line"]

# Cc: control characters (escape sequences begin with one). Cf: formatting, bidirectional overrides
# among it. Cs: lone surrogates, which no terminal encoding can hold. Zl, Zp: further line breaks.
_ESCAPED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def counted(count: int, thing: str) -> str:
    """``count`` of ``thing`` (a noun whose plural ends in s): "1 video", "2 videos"."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def one_line(value: object) -> str:
    r"""The text of ``value`` with every character escaped that could act on a terminal.

    Names, labels and paths come from strangers: without this, a file name can move the cursor,
    change colours, or print a line of its own. Line breaks become ``\n``.
    """
    text = str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(character) for character in text)


def printable(value: object) -> str:
    """As ``one_line`` for each line of the text; line breaks stay."""
    return "\n".join(one_line(line) for line in str(value).split("\n"))


def printable_json(text: str) -> str:
    """JSON text with the same characters as JSON escapes: every reader gets the same values."""
    if text.isascii():
        return text  # JSON escapes the control characters of ASCII itself
    return "".join(
        json.dumps(c)[1:-1] if c > "\x7e" and unicodedata.category(c) in _ESCAPED_CATEGORIES else c
        for c in text
    )


def shell_line(arguments: Iterable[str]) -> str:
    """A command for a shell; what could act on a terminal is escaped, as bash and zsh read it."""
    return " ".join(_quoted(argument) for argument in arguments)


def _quoted(argument: str) -> str:
    if one_line(argument) == argument:
        return shlex.quote(argument)
    return "$'" + "".join(map(_in_ansi_c, argument)) + "'"


def _in_ansi_c(character: str) -> str:
    """A character between ``$'`` and ``'``."""
    code = ord(character)
    if character in "\\'":
        return "\\" + character
    if unicodedata.category(character) not in _ESCAPED_CATEGORIES:
        return character
    if code < 0x80 or 0xDC80 <= code <= 0xDCFF:  # ASCII, or a byte that is no UTF-8
        return f"\\x{code & 0xFF:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in _ESCAPED_CATEGORIES:
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
