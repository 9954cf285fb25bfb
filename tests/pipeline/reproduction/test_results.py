"""Rows from the results of runs: exact means, deviations and intervals; what is missing."""

from __future__ import annotations

import pytest
from helpers.reproductions import evaluation, expanded, scale_with

from distinit.pipeline.reproduction.expand import Choice, Reproduction
from distinit.pipeline.reproduction.results import reproduced_row
from distinit.schemas.reproduced import ReproducedRow
from distinit.schemas.run import EvaluationResult


def row_of(
    plan: Reproduction, results: list[EvaluationResult | str], row: int = 0
) -> ReproducedRow:
    """The row, with one result or one reason why there is none per run."""
    names = [run.scored for run in plan.rows["table9"][row].runs]
    pairs = dict(zip(names, results, strict=True))
    found = {n: r for n, r in pairs.items() if isinstance(r, EvaluationResult)}
    reasons = {n: r for n, r in pairs.items() if isinstance(r, str)}
    return reproduced_row(plan.rows["table9"][row], plan, found, reasons)


def test_mean_and_deviation_are_over_seeds_of_means_over_splits() -> None:
    plan = expanded({}, choice=Choice(splits=(1, 2, 3), seeds=(0, 1)))
    # Runs are ordered by split, then by seed: seed 0 has 10, 20, 30 and seed 1 has 16, 26, 36.
    row = row_of(plan, [evaluation(top1) for top1 in (10, 16, 20, 26, 30, 36)])
    assert row.ours is not None
    assert row.ours.top1.mean == pytest.approx(23.0)
    assert row.ours.top1.sd == pytest.approx(18**0.5)  # of 20 and 26
    assert row.ours.per_clip.mean == pytest.approx(22.0)
    assert row.ours.top5 is not None
    assert row.ours.top5.mean == pytest.approx(33.0)
    assert (row.ours.seeds, row.ours.splits, row.ours.chance) == ((0, 1), (1, 2, 3), 10.0)
    assert row.ours.top1_interval is None
    assert (row.our_data, row.note) == ("moving digits A, 3 splits", "2 seeds")


@pytest.mark.parametrize(("classes", "shown"), [(5, False), (6, True)])
def test_top5_needs_more_than_five_classes(classes: int, shown: bool) -> None:
    row = row_of(expanded({}), [evaluation(60.0, classes=classes)])
    assert row.ours is not None
    assert (row.ours.top5 is not None) == shown


def test_one_seed_has_an_interval_over_its_test_videos_instead() -> None:
    row = row_of(expanded({}), [evaluation(60.0, videos=80)])
    assert row.ours is not None
    assert row.ours.top1.sd is None
    assert row.ours.top1_interval == pytest.approx((49.04, 70.04), abs=0.01)  # Wilson, 48 of 80
    assert row.our_data == "moving digits A, split 1"


def test_the_interval_of_several_splits_is_over_all_their_videos() -> None:
    plan = expanded({}, choice=Choice(splits=(1, 2)))
    row = row_of(plan, [evaluation(60.0, videos=40), evaluation(60.0, videos=40)])
    assert row.ours is not None
    assert row.ours.top1_interval == pytest.approx((49.04, 70.04), abs=0.01)


def test_a_row_has_the_best_rate_of_a_sweep() -> None:
    plan = expanded({}, scale=scale_with(sweep=(0.02, 0.1), seeds=(0, 1)))
    # Ordered by seed, then by rate: .02 has 30 and 34, .1 has 40 and 20.
    row = row_of(plan, [evaluation(top1) for top1 in (30, 40, 34, 20)])
    assert row.ours is not None
    assert (row.ours.learning_rate, row.ours.top1.mean) == (0.02, 32.0)
    assert row.ours.sweep == {"0.02": 32.0, "0.1": 30.0}
    assert row.shown == "finetune-hmdb51-split1-r2plus1d_18-scratch-s0-lr0.02"
    assert row.note == "2 seeds; LR 0.02, the best on the test videos (0.02: 32.0, 0.1: 30.0)"


def test_a_rate_with_fewer_finished_seeds_is_not_chosen() -> None:
    plan = expanded({}, scale=scale_with(sweep=(0.02, 0.1), seeds=(0, 1)))
    row = row_of(plan, [evaluation(30), evaluation(90), evaluation(34), "out of memory"])
    assert row.ours is not None
    assert (row.ours.learning_rate, row.ours.seeds) == (0.02, (0, 1))
    assert row.note.endswith("; 1 of 4 runs missing: out of memory")


def test_a_seed_counts_only_with_all_of_its_splits() -> None:
    plan = expanded({}, choice=Choice(splits=(1, 2), seeds=(0, 1)))
    row = row_of(plan, [evaluation(10), evaluation(50), evaluation(20), "broken"])
    assert row.ours is not None
    assert (row.ours.seeds, row.ours.top1.mean) == ((0,), 15.0)
    assert row.note == "1 seed; 1 of 4 runs missing: broken"


def test_a_row_without_results_says_why() -> None:
    row = row_of(expanded({}), ["needs weights/w.pth: no such file"])
    assert (row.ours, row.our_data, row.shown) == (None, "", None)
    assert row.note == "needs weights/w.pth: no such file"
    absent = expanded({}, scale=scale_with(students={}))
    assert row_of(absent, []).note == "not at this scale: the scale has no student r2plus1d_18"


def test_the_papers_data_are_named_where_the_paper_has_a_result() -> None:
    plan = expanded(
        {"paper": {"top1": 1.0}},
        {"paper": {"top1": 1.0}, "all_splits": True, "dataset": "ucf101"},
        {},
    )
    named = [reproduced_row(row, plan, {}, {}).paper_data for row in plan.rows["table9"]]
    assert named == ["HMDB-51, split 1", "UCF-101, 3 splits", ""]
