"""Conditions that a cache must not meet, such as ``kept(3.5) < 0.4``: parsed and checked."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from distinit.schemas.audit import AuditResult, ConfidenceAudit, ThresholdCurve
from distinit.schemas.audit_features import FeatureAudit
from distinit.schemas.audit_labels import LabelAudit
from distinit.schemas.errors import ConfigError
from distinit.schemas.wording import did_you_mean

__all__ = ["Condition", "failed_conditions", "parse_condition", "refuse_undefined"]

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?"
_CONDITION = re.compile(
    rf"\s*([a-z_]+)\s*(?:\(\s*({_NUMBER})\s*\))?\s*(<=|>=|<|>)\s*({_NUMBER})\s*", re.ASCII
)
_LONGEST = 200  # characters
_LEAVE_OUT = "leave the condition out"
_NO_STATISTICS = "no statistics in the cache: `distinit cache statistics` adds them"
_NO_LABEL = "no frame with a label that is a class of a teacher"
_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


_OF_CACHE: Mapping[str, Callable[[AuditResult], float]] = {
    "videos": lambda result: result.videos,
    "videos_failed": lambda result: _share(result.failed_videos, result.videos),
    "videos_damaged": lambda result: _share(result.damaged_videos, result.videos),
    "frames": lambda result: result.frames,
    "warnings": lambda result: len(result.warnings),
}
_OF_TEACHER: Mapping[str, Callable[[ConfidenceAudit], float]] = {
    "classes_seen": lambda found: found.classes_seen,
    "entropy_mean": lambda found: found.mean_entropy_nats,
    "entropy_median": lambda found: found.quartiles_nats[1],
}


_OF_LABELS: Mapping[str, Callable[[LabelAudit], float]] = {
    "accuracy": lambda found: found.accuracy,
    "ece": lambda found: found.ece,
    "temperature": lambda found: found.temperature,
}


def _kept_frames(curve: ThresholdCurve, place: int) -> float:
    return _share(curve.frames[place], curve.frames[-1])


def _kept_clips(curve: ThresholdCurve, place: int) -> float:
    return curve.clips[place]


def _kept_videos(curve: ThresholdCurve, place: int) -> float:
    return _share(curve.videos[place], curve.videos[-1])


_AT_THRESHOLD: Mapping[str, Callable[[ThresholdCurve, int], float]] = {
    "kept": _kept_frames,
    "kept_clips": _kept_clips,
    "kept_videos": _kept_videos,
}
_OF_FEATURES: Mapping[str, Callable[[FeatureAudit], float | None]] = {
    "collapsed_dimensions": lambda found: found.collapsed_dimensions,
    "effective_rank": lambda found: found.effective_rank,
    "norm_median": lambda found: found.norm_median,
}
_PLAIN = (*_OF_CACHE, *_OF_TEACHER, *_OF_LABELS, *_OF_FEATURES)
_NAMES = (*(f"{name}(NATS)" for name in _AT_THRESHOLD), *_PLAIN)


@dataclass(frozen=True, slots=True)
class Condition:
    """``name < limit`` or ``name(nats) < limit``."""

    name: str
    nats: float | None
    compare: str
    limit: float

    def __str__(self) -> str:
        argument = "" if self.nats is None else f"({self.nats:g})"
        return f"{self.name}{argument} {self.compare} {self.limit:g}"

    def holds(self, value: float) -> bool:
        """Whether a value meets the condition."""
        return _COMPARE[self.compare](value, self.limit)


def parse_condition(text: str) -> Condition:
    """The condition that ``text`` states. Raises ConfigError if it is none."""
    match = _CONDITION.fullmatch(text[: _LONGEST + 1]) if len(text) <= _LONGEST else None
    if match is None:
        raise _unusable(text, "NAME < NUMBER or NAME(NATS) < NUMBER, with <, <=, > or >=")
    name, nats, compare, limit = match.groups()
    names = (*_AT_THRESHOLD, *_PLAIN)
    if name not in names:
        raise _unusable(text, ", ".join(_NAMES), did_you_mean(name, names))
    if (name in _AT_THRESHOLD) != (nats is not None):
        with_nats = f"{name}(NATS)" if name in _AT_THRESHOLD else f"{name} without a number"
        raise _unusable(text, with_nats)
    condition = Condition(name, None if nats is None else float(nats), compare, float(limit))
    if not math.isfinite(condition.limit) or not math.isfinite(condition.nats or 0.0):
        raise _unusable(text, "finite numbers")
    return condition


def _unusable(text: str, expected: str, hint: str | None = None) -> ConfigError:
    return ConfigError(
        "a condition of --fail-if cannot be used",
        expected=expected,
        found=text[:_LONGEST],
        remedy=hint or 'write it like "kept(3.5) < 0.4" or "videos_failed > .01"',
    )


def refuse_undefined(
    conditions: Sequence[Condition], targets: Collection[str], *, has_labels: bool
) -> None:
    """Raise ConfigError for a condition about something that the audit will not have.

    ``targets``: what the teachers of the cache store, "logits" or "features".
    """
    for condition in conditions:
        if condition.name in _OF_LABELS and not has_labels:
            raise _undefined(condition, "no labels", "add --labels CSV or --labels folders")
        needed = "features" if condition.name in _OF_FEATURES else "logits"
        if condition.name not in _OF_CACHE and needed not in targets:
            raise _undefined(condition, f"no teacher that stores {needed}", _LEAVE_OUT)


def failed_conditions(conditions: Sequence[Condition], result: AuditResult) -> tuple[str, ...]:
    """The conditions that hold, with what was found; those of teachers for each of them.

    Raises ConfigError for a condition that has no value: it would never fail.
    """
    failed = []
    for condition in conditions:
        values = list(_values(condition, result))
        if not values:
            raise _undefined(condition, _reason(condition, result), _LEAVE_OUT)
        failed += [
            f"{condition}: found {value:.6g}{of}" for value, of in values if condition.holds(value)
        ]
    return tuple(failed)


def _reason(condition: Condition, result: AuditResult) -> str:
    """Why a condition has no value."""
    if condition.name in _OF_LABELS:
        return _NO_LABEL
    has_features = any(teacher.features is not None for teacher in result.teachers)
    return _NO_STATISTICS if condition.name in _OF_FEATURES and has_features else "no frames"


def _undefined(condition: Condition, found: str, remedy: str) -> ConfigError:
    return ConfigError(
        f"the condition {condition} of --fail-if cannot be checked",
        expected=f"an audit that measures {condition.name}",
        found=found,
        remedy=remedy,
    )


def _values(condition: Condition, result: AuditResult) -> Iterator[tuple[float, str]]:
    """The values that a condition is about, and of which teacher they are."""
    if condition.name in _OF_CACHE:
        yield _OF_CACHE[condition.name](result), ""
        return
    for teacher in result.teachers:
        of = f" for {teacher.record.id}"
        if condition.name in _OF_LABELS:
            if teacher.labels is not None:
                yield _OF_LABELS[condition.name](teacher.labels), of
        elif condition.name in _OF_FEATURES:
            if teacher.features is not None:
                value = _OF_FEATURES[condition.name](teacher.features)
                yield from () if value is None else ((value, of),)
        elif teacher.confidence is not None and _is_defined(condition, teacher.confidence):
            yield _value_of(condition, teacher.confidence), of


def _is_defined(condition: Condition, confidence: ConfidenceAudit) -> bool:
    return condition.name != "kept_clips" or bool(confidence.curve.clips)


def _value_of(condition: Condition, confidence: ConfidenceAudit) -> float:
    if condition.nats is None:
        return _OF_TEACHER[condition.name](confidence)
    curve = confidence.curve
    highest_nats = len(curve.frames) * curve.step_nats
    place = math.floor(min(max(condition.nats, 0), highest_nats) / curve.step_nats) - 1
    return _AT_THRESHOLD[condition.name](curve, place) if place >= 0 else 0.0
