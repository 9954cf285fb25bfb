"""The table of the moving digits: accuracy per seed, mean and spread, and the gain."""

from __future__ import annotations

from moving_digits import table

from distinit.schemas.run import EvaluationResult


def result(correct: int) -> EvaluationResult:
    """``correct`` of 100 test videos of two classes are right."""
    return EvaluationResult(
        protocol="vmz-10",
        videos=100,
        clips=1000,
        per_clip=50.0,
        top1=float(correct),
        top5=100.0,
        classes=2,
        confusion=((correct, 100 - correct), (0, 0)),
        failed_videos=(),
    )


def test_the_table_has_one_column_per_seed() -> None:
    results = [
        {"scratch": result(20), "distinit": result(50)},
        {"scratch": result(24), "distinit": result(60)},
    ]
    assert table(results, [0, 3], 6) == [
        "| init | seed 0 | seed 3 | mean ± sd |",
        "|---|---|---|---|",
        "| scratch | 20.0 | 24.0 | 22.0 ± 2.8 |",
        "| distinit | 50.0 | 60.0 | 55.0 ± 7.1 |",
        "| gain | +30.0 (+16.9 .. +41.7) | +36.0 (+22.5 .. +47.6) | +33.0 |",
    ]


def test_one_seed_has_no_spread() -> None:
    lines = table([{"scratch": result(20), "distinit": result(50)}], [0], 6)
    assert lines[2] == "| scratch | 20.0 | 20.0 ± - |"
