"""Shares of clips with targets, and errors if no clip has one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distinit.pipeline.distillation.target_coverage import (
    refuse_empty_filters,
    refuse_filters_without_clips,
    target_shares,
)
from distinit.pipeline.distillation.task import DistillTask, open_distill_task
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import ConfigError
from distinit.schemas.run import LeftOut
from distinit.schemas.thresholds import TargetShare


def line(step: int, with_target: float, kept: float, **more: int) -> dict[str, float]:
    return {"step": step, "with_target/a": with_target, "kept/a": kept, **more}


def test_shares_are_means_over_steps() -> None:
    lines = [line(1, 1.0, 1.0), line(4, 0.5, 0.0), {"step": 5, "loss": 1.0}]
    assert target_shares(lines, ["a", "b"]) == {"a": TargetShare(with_target=0.625, kept=0.25)}
    assert target_shares([], ["a"]) == {}


def test_few_targets_cause_a_warning() -> None:
    assert TargetShare(with_target=1, kept=1).lines("a") == ["a: 100.0% of the clips had a target"]
    assert TargetShare(with_target=1, kept=0.25).lines("a") == [
        "a: 100.0% of the clips had a target, 25.0% kept by the filter"
    ]
    few = TargetShare(with_target=0.49, kept=0.49).lines("a")
    assert few[0] == "a: 49.0% of the clips had a target"
    assert few[1].startswith("warning: most clips had no target for head a")


def test_control_characters_in_video_names_are_escaped() -> None:
    assert LeftOut().lines() == []
    left_out = LeftOut(failed=2, not_in_store=1, examples=("a\n\x1b[2Jok.mp4 (not there)",))
    assert left_out.lines() == [
        "left out: 2 failed, 1 not in the frame store",
        r"  a\n\x1b[2Jok.mp4 (not there)",
    ]


def task_of(stored: Path, *targets: dict[str, Any], **changes: Any) -> DistillTask:
    values = {
        "cache": str(stored / ("two" if len(targets) > 1 else "one")),
        "frames": str(stored / "frames"),
        "out": "unused",
        "student": {"name": "tiny_r2plus1d_10"},
        "clip": {"frames": 4, "crop": 16},
        "targets": targets,
    }
    return open_distill_task(DistillConfig.model_validate(values | changes))


NONE, SOME = {"filter": {"max_entropy_nats": 1e-6}}, {"filter": {"max_entropy_nats": 1.0}}


def test_a_filter_that_keeps_no_clip_is_rejected_before_training(stored: Path) -> None:
    task = task_of(stored, NONE)
    with pytest.raises(ConfigError, match="filter of teacher alpha keeps no clip") as caught:
        refuse_empty_filters(task.readers, "per_teacher")
    assert caught.value.expected == "frames with an entropy of at most 1e-06 nats"
    lowest_nats = task.readers[0].lowest_entropy_nats()
    assert caught.value.found == f"{lowest_nats:.4g} nats for the most confident frame of the cache"
    refuse_empty_filters(task_of(stored, SOME).readers, "per_teacher")
    alpha, beta = {"teacher": "alpha"}, {"teacher": "beta"}
    both = task_of(stored, alpha | NONE, beta | SOME).readers
    refuse_empty_filters(both, "any")
    for combine in ("all", "per_teacher"):
        with pytest.raises(ConfigError, match="keeps no clip"):
            refuse_empty_filters(both, combine)


def test_a_filter_whose_clips_are_all_less_confident_than_some_frame_is_rejected(
    stored: Path,
) -> None:
    frame_nats = task_of(stored, SOME).readers[0].lowest_entropy_nats()
    assert frame_nats is not None
    between = {"pick": "all", "filter": {"max_entropy_nats": frame_nats * 1.0001}}
    task = task_of(stored, between)
    refuse_empty_filters(task.readers, "per_teacher")  # a frame passes, but no clip
    assert task.thresholds.teachers["alpha"].kept == 0
    with pytest.raises(ConfigError, match="teacher alpha keeps no clip") as caught:
        task.refuse_filters_without_clips()
    assert caught.value.expected == (
        f"clips whose target has an entropy of at most {frame_nats * 1.0001:.4g} nats"
    )
    clip_nats = float(str(caught.value.found).split()[0])
    assert clip_nats > frame_nats
    above = {"pick": "all", "filter": {"max_entropy_nats": clip_nats * 1.001}}
    found = task_of(stored, above)
    found.refuse_filters_without_clips()
    assert found.thresholds.teachers["alpha"].kept > 0


def test_filters_that_no_clip_passes_together_are_rejected(stored: Path) -> None:
    def both(keep: float, combine: str) -> DistillTask:
        targets = [
            {"teacher": name, "pick": "center", "filter": {"keep_fraction": keep}}
            for name in ("alpha", "beta")
        ]
        return task_of(stored, *targets, combine_filters=combine)

    both(1e-6, "any").refuse_filters_without_clips()
    both(1e-6, "per_teacher").refuse_filters_without_clips()
    both(0.9, "all").refuse_filters_without_clips()
    task = both(1e-6, "all")
    kept = {name: record.kept for name, record in task.thresholds.teachers.items()}
    assert all(0 < share < 0.5 for share in kept.values())
    with pytest.raises(ConfigError, match="no clip passes the filters of all teachers") as caught:
        task.refuse_filters_without_clips()
    assert caught.value.found == (f"alpha keeps {kept['alpha']:.1%}, beta keeps {kept['beta']:.1%}")


def test_the_teacher_that_contributes_nothing_is_named(stored: Path) -> None:
    readers = task_of(stored, {"teacher": "alpha"}, {"teacher": "beta"} | SOME).readers
    kept = {"beta": 0.0}
    refuse_filters_without_clips(readers, kept, lambda _: 2.5, "any")
    for combine in ("all", "per_teacher"):
        with pytest.raises(ConfigError, match="teacher beta keeps no clip") as caught:
            refuse_filters_without_clips(readers, kept, lambda _: 2.5, combine)
        assert caught.value.found == "2.5 nats for the most confident clip"


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ((0.0, 0.0), "no clip had a target of teacher alpha"),
        ((1.0, 0.0), "the filter of teacher alpha dropped every clip"),
    ],
)
def test_an_error_is_raised_if_every_clip_has_weight_0(
    stored: Path, shares: tuple[float, float], message: str
) -> None:
    task = task_of(stored, SOME)

    def after(with_target: float, kept: float, clips: int) -> list[dict[str, float]]:
        names = {"with_target/alpha": with_target, "kept/alpha": kept}
        return [{"step": 1, "clips": clips, "clips_total": 1000, **names}]

    for clips in (200, 1000):
        with pytest.raises(ConfigError, match=message):
            task.check_progress(after(*shares, clips))
    task.check_progress(after(*shares, 199))  # too few clips to rule out chance
    task.check_progress(after(1.0, 0.001, 200))
    task.check_progress([])
