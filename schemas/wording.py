"""Formats values for messages: counts, and texts from others, which must not control a terminal."""

from __future__ import annotations

import difflib
import json
import shlex
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence

__all__ = [
    "closest_names",
    "counted",
    "did_you_mean",
    "duration",
    "first_lines",
    "first_names",
    "listing",
    "one_line",
    "printable",
    "printable_json",
    "reason_of",
    "shell_line",
    "shorten",
    "shown",
]

# Cc: control characters (escape sequences begin with one). Cf: formatting, including bidirectional
# overrides. Cs: lone surrogates, which terminals cannot encode. Zl, Zp: other line breaks.
_ESCAPED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})

_SHOWN = 300  # characters of a value in a message
_LONGEST_NAME = 200
"""Characters of a name that are compared: comparing takes quadratic time."""


def counted(count: int, thing: str, plural: str | None = None) -> str:
    """``count`` and the noun ``thing``: "1 video", "2 videos". Its plural ends in s by default."""
    return f"{count} {thing}" if count == 1 else f"{count} {plural or f'{thing}s'}"


def duration(seconds: float) -> str:
    """A time that is read, not computed with: "84 s", "9 min", "2.1 h"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def closest_names(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """The names in ``known`` that ``name`` may be a misspelling of, the closest first.

    Upper and lower case do not matter, nor do ``-``, ``_`` and blanks. At least 60 % of the
    characters must agree (difflib's ratio).
    """
    by_plain: dict[str, str] = {}
    for candidate in known:
        by_plain.setdefault(_plain(candidate), candidate)
    found = difflib.get_close_matches(_plain(name[:_LONGEST_NAME]), by_plain, n=limit)
    return [by_plain[plain] for plain in found]


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """``did you mean a, b or c?`` for the closest known names; None if none is close."""
    found = closest_names(name, known)
    if not found:
        return None
    *others, last = found
    return f"did you mean {f'{", ".join(others)} or ' if others else ''}{last}?"


def reason_of(error: BaseException) -> str:
    """Why something failed, as one line for people: without error numbers and quoted paths."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8 text"
    return (str(error).strip().splitlines() or ["no reason given"])[0]


def first_names(names: Iterable[str], limit: int = 5) -> str:
    """The first ``limit`` names, and how many more there are: "a, b and 3 more"."""
    listed = list(names)
    more = len(listed) - limit
    return ", ".join(listed[:limit]) + (f" and {more} more" if more > 0 else "")


def listing(value: object) -> str:
    """A value as text: names and numbers separated by commas, or one line for each key."""
    if isinstance(value, Mapping):
        return "\n".join(f"{key}: {shown(part)}" for key, part in value.items())
    if isinstance(value, Collection) and not isinstance(value, str | bytes):
        return ", ".join(map(str, value)) or "nothing"
    return str(value)


def first_lines(lines: Sequence[str], limit: int) -> list[str]:
    """The first ``limit`` lines of a result, indented, and a line that counts the others."""
    shown = [f"  {line}" for line in lines[:limit]]
    more = len(lines) - limit
    return [*shown, f"  ... {more} more; --json lists all"] if more > 0 else shown


def shown(value: object) -> str:
    """A value in a message: as it is written in YAML, texts in double quotes, bounded in length."""
    if value is None:
        return "nothing"
    try:
        return shorten(json.dumps(value, ensure_ascii=False))
    except (TypeError, ValueError, RecursionError):  # a date, a key that is no text
        return shorten(str(value))


def shorten(text: str) -> str:
    """The beginning of a long text."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …"


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


def _plain(name: str) -> str:
    """``name`` for comparison: in lower case, with ``_`` for ``-`` and blanks."""
    return name.lower().replace("-", "_").replace(" ", "_")


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in _ESCAPED_CATEGORIES:
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
