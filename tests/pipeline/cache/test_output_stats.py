"""A teacher that says little is told: by its entropy, its ties, its one class."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from helpers import caches

from distinit.pipeline.cache.confidence import confidence_of
from distinit.pipeline.cache.output_stats import output_report, output_sums
from distinit.schemas.manifest import OutputSums
from distinit.schemas.output_reports import OutputReport
from distinit.schemas.teacher import TeacherIdentity


def sums_of(logits_NC: np.ndarray, rows: np.ndarray | None = None) -> OutputSums:
    columns = dataclasses.asdict(confidence_of(logits_NC.astype(np.float32)))
    rows = np.arange(len(logits_NC)) if rows is None else rows
    return output_sums(columns, logits_NC.shape[1], rows)


@pytest.fixture
def identity() -> TeacherIdentity:
    identity: TeacherIdentity = caches.make_teacher("alpha", classes=3).identity
    return identity.model_copy(update={"label_names": ("cat", "dog", "\x1b[31mred")})


def report_of(identity: TeacherIdentity, *units: np.ndarray) -> OutputReport:
    report = output_report([sums_of(unit) for unit in units], identity)
    assert report is not None
    return report


def test_sums_of_some_rows() -> None:
    logits_NC = np.array([[5, 5, 0], [1, 1, 1], [0, 9, 1], [7, 0, 0]])
    found = sums_of(logits_NC, np.array([0, 1, 2]))
    assert (found.frames, found.ties, found.flat) == (3, 2, 1)
    assert (found.top_class, found.top_class_frames) == (0, 2)
    assert found.entropy_nats_sum == pytest.approx(1.8162, abs=1e-4)
    assert sums_of(logits_NC, np.zeros(0, int)) == OutputSums()


def test_an_informative_teacher_is_passed_over(identity: TeacherIdentity) -> None:
    rng = np.random.default_rng(0)
    report = report_of(identity, *rng.normal(0, 3, (4, 100, 3)))
    assert (report.frames, report.warnings) == (400, [])
    assert report.highest_possible_nats == pytest.approx(np.log(3))


def test_no_frames_and_features_have_no_report(identity: TeacherIdentity) -> None:
    assert output_report([], identity) is None
    assert output_report([None, OutputSums()], identity) is None


def test_all_equal_logits_are_said(identity: TeacherIdentity) -> None:
    assert report_of(identity, np.zeros((50, 3)), np.full((50, 3), 7.5)).warnings == [
        "mean entropy 1.099 of at most 1.099 nats: its targets are almost uniform",
        "all logits are equal for 100.0% of the frames",
        "class 0 (cat) is the most probable one for 100.0% of the frames",
    ]


def test_ties_at_the_top_are_said(identity: TeacherIdentity) -> None:
    rng = np.random.default_rng(0)
    unit = rng.normal(0, 3, (100, 3))
    unit[:2] = [4, 4, 0]
    assert report_of(identity, unit).warnings == [
        "the two largest logits are equal for 2.0% of the frames: "
        "the class with the lower number is taken"
    ]


def test_one_class_for_nearly_all_frames_is_said_by_its_name(identity: TeacherIdentity) -> None:
    units = [np.tile([[0.0, 0, 9]], (1000, 1)) for _ in range(2)]
    units[1][:15] = [9, 0, 0]
    report = report_of(identity, *units)
    assert report.top_class_fraction == 1985 / 2000
    assert report.warnings == [
        "class 2 (\\x1b[31mred) is the most probable one for 99.2% of the frames"
    ]
    assert report_of(identity, units[0][:99]).warnings == []


def test_a_cache_says_it(cache_root: object, teachers: list[object]) -> None:
    writer = caches.open_writer(cache_root, caches.CORPUS, teachers)
    with writer:
        commits = writer.state().commits
    frames = {n: sum(c.answers.frames for c in of.values()) for n, of in commits.items()}
    assert frames == {"alpha": 279, "beta": 279}
