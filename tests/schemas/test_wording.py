"""Counts in messages, and texts with control characters."""

from __future__ import annotations

import json

import pytest

from distinit.schemas.wording import (
    counted,
    first_lines,
    first_names,
    one_line,
    printable,
    printable_json,
)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 failed videos"), (1, "1 failed video"), (2, "2 failed videos")]
)
def test_counts_use_singular_and_plural(count: int, text: str) -> None:
    assert counted(count, "failed video") == text


@pytest.mark.parametrize(("count", "text"), [(1, "1 class"), (2, "2 classes")])
def test_a_plural_can_be_given(count: int, text: str) -> None:
    assert counted(count, "class", "classes") == text


def test_long_lists_are_cut_and_say_how_much_is_left_out() -> None:
    assert first_names("abc", limit=3) == "a, b, c"
    assert first_names("abcd", limit=3) == "a, b, c and 1 more"
    assert first_names([]) == ""
    assert first_lines(["a", "b"], 2) == ["  a", "  b"]
    assert first_lines(["a", "b", "c"], 1) == ["  a", "  ... 2 more; --json lists all"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("clip (1) ü 日本.mp4", "clip (1) ü 日本.mp4"),
        ("a\x1b[2K\rok: all bytes match", "a\\x1b[2K\\rok: all bytes match"),
        ("a\nok", "a\\nok"),
        ("\x7f\x9b\u2028", "\\x7f\\x9b\\u2028"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\ud800\udcff", "\\ud800\\udcff"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_characters_that_control_a_terminal_are_escaped(text: str, shown: str) -> None:
    assert one_line(text) == shown
    one_line(text).encode()


def test_printable_keeps_line_breaks() -> None:
    assert printable("a\nb\x1b") == "a\nb\\x1b"
    assert one_line(3) == printable(3) == "3"


def test_printable_json_keeps_its_values_and_cannot_control_a_terminal() -> None:
    record = {"path": "a\x1b\x7f\x9b\u202e\U000e0001 ü 日本.mp4"}
    text = json.dumps(record, indent=2, ensure_ascii=False)
    shown = printable_json(text)
    assert json.loads(shown) == record
    assert "ü 日本" in shown
    assert all(c == "\n" or c.isprintable() for c in shown)
