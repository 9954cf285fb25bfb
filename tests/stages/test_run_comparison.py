"""Groups of runs are compared by mean, spread, and an interval over the same test videos."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.finished_runs import dataset_of, write_finished

from distinit.cli import main
from distinit.pipeline.datasets.scored import ScoredVideo
from distinit.pipeline.evaluation.intervals import difference_interval
from distinit.pipeline.evaluation.scorer import ClipScores, Scoring
from distinit.pipeline.evaluation.scores_file import ScoresWriter, scores_name, scores_record
from distinit.schemas.errors import ConfigError
from distinit.schemas.training import ClipConfig
from distinit.stages.run_comparison import compare_runs

DATASET = dataset_of([4, 4])


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two seeds with 4 and 5, and two with 6 and 8, of 8 test videos correct."""
    for name, confusion in {
        "scratch-0": [[2, 2], [2, 2]],
        "scratch-1": [[3, 1], [2, 2]],
        "init-0": [[3, 1], [1, 3]],
        "init-1": [[4, 0], [0, 4]],
    }.items():
        write_finished(tmp_path / name, DATASET, confusion)
    return tmp_path


def write_scores(run: Path, wrong: set[int]) -> None:
    """Scores in which the videos at these positions are classified wrongly."""
    videos = [ScoredVideo(v.path, v.label, v.digest[:16]) for v in DATASET.subset("test")]
    scoring = Scoring(ClipConfig(), "vmz-1", 4, "fp32", 0)
    record = scores_record(scoring, DATASET, student="0" * 64)
    record = record.model_copy(update={"protocol": "vmz-10"})
    label_V = np.array([v.label for v in videos])
    shown_V = np.where(np.isin(np.arange(8), list(wrong)), 1 - label_V, label_V)
    logits = np.eye(2, dtype=np.float32)[shown_V]
    zero, ten = np.zeros(8, np.int64), np.full(8, 10)
    with ScoresWriter.create(run / scores_name("vmz-10"), record, videos) as writer:
        writer.append(ClipScores(np.arange(8), zero, zero, zero, ten, logits))


def test_without_scores_the_interval_is_from_the_counts(runs: Path) -> None:
    found = compare_runs(str(runs / "scratch-*"), str(runs / "init-*"))
    first, second = found.groups
    assert (first.top1.mean, second.top1.mean) == (56.25, 87.5)
    assert first.top1.sd == pytest.approx(12.5 / 2**0.5)
    assert (len(first.runs), found.test_videos, found.difference_points) == (2, 8, 31.25)
    low, high = difference_interval(7, 8, 4, 8)
    assert found.interval == "independent"
    assert found.interval_points == pytest.approx((100 * low, 100 * high))


def test_stored_scores_pair_the_videos(runs: Path) -> None:
    for name, wrong in {
        "scratch-0": {0, 1, 4, 5},
        "scratch-1": {0, 4, 5},
        "init-0": {0, 4},
        "init-1": set[int](),
    }.items():
        write_scores(runs / name, wrong)
    found = compare_runs(str(runs / "scratch-*"), str(runs / "init-*"))
    differences = np.array([0.5, 0.5, 0, 0, 0.5, 1, 0, 0])
    half = 1.959963984540054 * differences.std(ddof=1) / 8**0.5
    assert found.interval == "paired"
    assert found.interval_points == pytest.approx((31.25 - 100 * half, 31.25 + 100 * half))
    write_scores(runs / "init-1", {7})  # other scores than those of its result
    other = compare_runs(str(runs / "scratch-*"), str(runs / "init-*"))
    assert other.interval == "independent"


def test_single_runs_have_no_spread_and_the_command_prints_both(runs: Path) -> None:
    pair = [str(runs / "scratch-0"), str(runs / "init-1")]
    text = CliRunner().invoke(main, ["runs", "--compare", *pair])
    assert text.exit_code == 0
    assert "difference in top-1: +50.0 points" in text.output
    printed = CliRunner().invoke(main, ["runs", "--compare", *pair, "--json"]).output
    assert [group["top1"] for group in json.loads(printed)["groups"]] == [
        {"mean": 50, "sd": None},
        {"mean": 100, "sd": None},
    ]


def test_runs_on_other_test_videos_and_empty_groups_are_refused(runs: Path) -> None:
    write_finished(runs / "other", dataset_of([3, 4]), [[3, 0], [0, 4]])
    with pytest.raises(ConfigError, match="cannot be compared"):
        compare_runs(str(runs / "scratch-0"), str(runs / "other"))
    with pytest.raises(ConfigError, match="no finished finetune run at"):
        compare_runs(str(runs / "none-*"), str(runs / "other"))
