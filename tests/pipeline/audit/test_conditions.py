"""Conditions of --fail-if: what they mean, and what is refused."""

from __future__ import annotations

import pytest

from distinit.pipeline.audit.conditions import Condition, parse_condition, refuse_undefined
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
        ("kept(inf) < 0.4", "NAME < NUMBER"),
        ("kept(1) < nan", "NAME < NUMBER"),
        ("frames < -inf", "NAME < NUMBER"),
        ("frames < 1e400", "finite numbers"),
        ("frames < 1e9999", "NAME < NUMBER"),
        ("frames < 0x10", "NAME < NUMBER"),
        ("frames < 1_000", "NAME < NUMBER"),
        ("frames \x00< 1", "NAME < NUMBER"),
        ("frames < 1\nframes > 1", "NAME < NUMBER"),
        ("kept(3.5)(2) < 1", "NAME < NUMBER"),
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


@pytest.mark.parametrize(
    ("text", "targets", "has_labels", "problem"),
    [
        ("accuracy < 1", {"logits"}, False, "no labels"),
        ("ece > 0", {"features"}, True, "no teacher that stores logits"),
        ("kept(3) < 1", {"features"}, False, "no teacher that stores logits"),
        ("entropy_mean > 1", set(), False, "no teacher that stores logits"),
        ("effective_rank < 50", {"logits"}, False, "no teacher that stores features"),
        ("collapsed_dimensions > 0", set(), True, "no teacher that stores features"),
    ],
)
def test_conditions_without_a_value_are_refused(
    text: str, targets: set[str], has_labels: bool, problem: str
) -> None:
    condition = parse_condition(text)
    refuse_undefined([condition], {"features", "logits"}, has_labels=True)
    with pytest.raises(ConfigError, match=problem):
        refuse_undefined([condition], targets, has_labels=has_labels)


def test_conditions_on_the_cache_need_no_teacher() -> None:
    of_cache, of_teacher = parse_condition("videos_failed > .1"), parse_condition("kept(1) < .5")
    with pytest.raises(ConfigError) as raised:
        refuse_undefined([of_cache, of_teacher], {"features"}, has_labels=False)
    assert "kept" in str(raised.value)
    assert "videos_failed" not in str(raised.value.problem)
