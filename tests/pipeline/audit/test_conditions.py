"""Conditions of --fail-if: what they mean, and what is refused."""

from __future__ import annotations

import pytest

from distinit.pipeline.audit.conditions import Condition, parse_condition
from distinit.schemas.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("kept(3.5) < 0.4", Condition("kept", 3.5, "<", 0.4)),
        ("  videos_failed>.01 ", Condition("videos_failed", None, ">", 0.01)),
        ("classes_seen <= 5e2", Condition("classes_seen", None, "<=", 500)),
        ("kept_clips( 0. ) >= 1", Condition("kept_clips", 0, ">=", 1)),
    ],
)
def test_conditions_are_parsed(text: str, condition: Condition) -> None:
    assert parse_condition(text) == condition
    assert parse_condition(str(condition)) == condition


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "NAME < NUMBER"),
        ("kept < 0.4", r"kept\(NATS\)"),
        ("classes_seen(3) < 5", "classes_seen without a number"),
        ("clases_seen < 5", "did you mean classes_seen?"),
        ("kept(3.5) == 0.4", "NAME < NUMBER"),
        ("kept(nan) < 0.4", "NAME < NUMBER"),
        ("kept(1e999) < 0.4", "finite numbers"),
        ("__import__('os') < 1", "NAME < NUMBER"),
        ("frames < 1 or 1 < 2", "NAME < NUMBER"),
        ("frames < " + "1" * 300, "NAME < NUMBER"),
        ("frames < ٣", "NAME < NUMBER"),
    ],
)
def test_other_texts_are_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        parse_condition(text)


def test_a_condition_compares() -> None:
    assert [parse_condition("frames < 3").holds(value) for value in (2, 3)] == [True, False]
    assert [parse_condition("frames >= 3").holds(value) for value in (2, 3)] == [False, True]
