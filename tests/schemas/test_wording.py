"""Counts in messages, and texts with control characters."""

from __future__ import annotations

import json

import pytest

from distinit.schemas.wording import (
    closest_names,
    counted,
    did_you_mean,
    first_lines,
    first_names,
    one_line,
    printable,
    printable_json,
    reason_of,
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


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("efficientnet_lit0", ["efficientnet_lite0"]),
        ("ResNet-50", ["resnet50"]),
        ("tiny r3d 9", ["tiny_r3d_9"]),
        ("xyz", []),
        ("", []),
    ],
)
def test_close_names_are_found_in_any_case_and_with_other_separators(
    name: str, closest: list[str]
) -> None:
    assert closest_names(name, ["efficientnet_lite0", "resnet50", "tiny_r3d_9"]) == closest


def test_a_question_lists_the_closest_names_in_order() -> None:
    assert did_you_mean("tabl1", ["table1", "table2", "fig3"]) == "did you mean table1 or table2?"
    assert did_you_mean("fig", ["table1", "fig3"]) == "did you mean fig3?"
    assert did_you_mean("resnet", ["table1"]) is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError(2, "No such file or directory", "/a"), "No such file or directory"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "not UTF-8 text"),
        (ValueError("one\ntwo"), "one"),
        (KeyError(), "no reason given"),
    ],
)
def test_reasons_have_no_error_numbers_and_one_line(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason
