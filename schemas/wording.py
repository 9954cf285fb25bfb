"""Formats values for messages: counts, and texts from others, which must not control a terminal."""

from __future__ import annotations

import json
import shlex
import unicodedata
from collections.abc import Iterable, Sequence

__all__ = [
    "counted",
    "duration",
    "first_lines",
    "first_names",
    "one_line",
    "printable",
    "printable_json",
    "shell_line",
]

# Cc: control characters (escape sequences begin with one). Cf: formatting, including bidirectional
# overrides. Cs: lone surrogates, which terminals cannot encode. Zl, Zp: other line breaks.
_ESCAPED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def counted(count: int, thing: str, plural: str | None = None) -> str:
    """``count`` and the noun ``thing``: "1 video", "2 videos". Its plural ends in s by default."""
    return f"{count} {thing}" if count == 1 else f"{count} {plural or f'{thing}s'}"


def duration(seconds: float) -> str:
    """A time that is read, not computed with: "84 s", "9 min", "2.1 h"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def first_names(names: Iterable[str], limit: int = 5) -> str:
    """The first ``limit`` names, and how many more there are: "a, b and 3 more"."""
    listed = list(names)
    more = len(listed) - limit
    return ", ".join(listed[:limit]) + (f" and {more} more" if more > 0 else "")


def first_lines(lines: Sequence[str], limit: int) -> list[str]:
    """The first ``limit`` lines of a result, indented, and a line that counts the others."""
    shown = [f"  {line}" for line in lines[:limit]]
    more = len(lines) - limit
    return [*shown, f"  ... {more} more; --json lists all"] if more > 0 else shown


def one_line(value: object) -> str:
    r"""The text of ``value`` with all characters escaped that could control a terminal.

    Names, labels and paths come from others: without this, a file name could move the cursor,
    change colours, or print additional lines. Line breaks become ``\n``.
    """
    text = str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(character) for character in text)


def printable(value: object) -> str:
    """As ``one_line``, but line breaks stay."""
    return "\n".join(one_line(line) for line in str(value).split("\n"))


def printable_json(text: str) -> str:
    """JSON text with the same characters written as JSON escapes, which leaves its values equal."""
    if text.isascii():
        return text  # JSON always escapes ASCII control characters
    return "".join(
        json.dumps(c)[1:-1] if c > "\x7e" and unicodedata.category(c) in _ESCAPED_CATEGORIES else c
        for c in text
    )


def shell_line(arguments: Iterable[str]) -> str:
    """A shell command; characters that could control a terminal are escaped for bash and zsh."""
    return " ".join(_quoted(argument) for argument in arguments)


def _quoted(argument: str) -> str:
    if one_line(argument) == argument:
        return shlex.quote(argument)
    return "$'" + "".join(map(_in_ansi_c, argument)) + "'"


def _in_ansi_c(character: str) -> str:
    """``character`` as it is written between ``$'`` and ``'``."""
    code = ord(character)
    if character in "\\'":
        return "\\" + character
    if unicodedata.category(character) not in _ESCAPED_CATEGORIES:
        return character
    if code < 0x80 or 0xDC80 <= code <= 0xDCFF:  # ASCII, or a byte that is not UTF-8
        return f"\\x{code & 0xFF:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in _ESCAPED_CATEGORIES:
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
