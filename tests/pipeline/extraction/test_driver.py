"""What the driver shows while tasks run."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from helpers.caches import planned_video
from helpers.progress import RecordingProgress
from helpers.videos import make_video

from distinit.pipeline.cache.group_spec import GroupSpec
from distinit.pipeline.cache.plan import PlannedRows, UnitGroup
from distinit.pipeline.compute.executor import Event, Finished, Progressed
from distinit.pipeline.extraction.driver import run_tasks
from distinit.pipeline.extraction.task import ExtractionTask, Note
from distinit.pipeline.extraction.worker import ExtractionWorker
from distinit.pipeline.progress import JsonProgress, NullProgress
from distinit.schemas.extract import ExtractConfig
from distinit.schemas.manifest import VideoOutcome, failed_outcome
from distinit.stages.extract import extract


def test_json_events_count_units_videos_frames_and_failures(tmp_path: Path) -> None:
    for seed, frames in enumerate((70, 30, 50)):
        make_video(tmp_path / "videos" / f"{seed}.mp4", frames=frames, seed=seed)
    (tmp_path / "videos" / "empty.mp4").touch()
    lines = io.StringIO()
    config = ExtractConfig.model_validate(
        {
            "videos": str(tmp_path / "videos"),
            "teachers": [{"name": "null"}],
            "cache": str(tmp_path / "cache"),
            "unit_rows": 64,
        }
    )
    extract(config, progress=JsonProgress(lines, every_seconds=0))
    events = [json.loads(line) for line in lines.getvalue().splitlines()]
    shown = [event for event in events if event.get("phase") == "extract"]
    last = shown[-1]
    assert last["event"] == "finish"
    assert (last["done"], last["total"], last["unit"]) == (150, 150, "frames")
    assert (last["videos"], last["videos_total"], last["failed"]) == (4, 4, 1)
    assert last["units"] == last["units_total"] >= 3
    counts = [(event["units"], event["videos"]) for event in shown[1:]]
    assert counts == sorted(counts)
    assert counts[0] == (0, 0)
    under_way = [event for event in shown if 0 < event["done"] < 150]
    assert all(event["per_second"] > 0 and event["eta_seconds"] >= 0 for event in under_way)
    assert under_way
    messages = [event["text"] for event in events if event["event"] == "message"]
    assert "failed: empty.mp4: the file is empty (0 bytes)" in messages


class BeginsAgain:
    """A worker that gets through one video, fails one, and dies in the third: all begin again."""

    def run[TaskT, ResultT](
        self, factory: Any, tasks: Sequence[TaskT], on_death: Any, ahead: Any
    ) -> Iterator[Event[TaskT, ResultT]]:
        (task,) = tasks
        for last in (3, 10):
            for video in ("a", "bad", "c"):
                yield Progressed(task, Note(video))
                frames = {"a": 5, "bad": 2, "c": last}[video]
                yield Progressed(task, Note(video, frame_count=frames))
                if (video, last) != ("c", 3):
                    yield Progressed(task, Note(video, f"{video}.mp4", outcome=outcome(video)))
        yield Finished(task, None)  # type: ignore[arg-type]

    def drain(self) -> None: ...

    def close(self) -> None: ...


def rows_of(name: str, first_row: int) -> PlannedRows:
    video = planned_video("0" * 64, f"{name}.mp4", 8)
    return PlannedRows(replace(video, file=replace(video.file, video_id=name)), first_row)


def outcome(video: str) -> VideoOutcome:
    size = {"width": 4, "height": 4, "duration_seconds": 1.0}
    if video == "bad":
        return VideoOutcome(video_id=video, status="failed", frame_count=0, error="torn", **size)
    return VideoOutcome(video_id=video, status="ok", frame_count=5, **size)


def test_videos_that_begin_again_after_a_death_count_once() -> None:
    videos = tuple(rows_of(name, at) for at, name in enumerate(("a", "bad", "c")))
    spec = GroupSpec(Path("cache"), 64, UnitGroup(0, 1, videos), (), "fence")
    progress = RecordingProgress()
    ran = run_tasks(BeginsAgain(), ExtractionWorker, [ExtractionTask(spec)], 2, 1, progress)  # type: ignore[arg-type]
    assert (ran.frame_count, ran.failed_count, ran.stopped_early) == (17, 1, False)
    assert progress.advanced == 17
    assert progress.messages == ["failed: bad.mp4: torn"]
    assert progress.advances[-1][1] == {"videos": (3, 3), "units": (1, 1), "failed": 1}
    assert all(shown["videos"] <= (3, 3) for _, shown in progress.advances)


class FindsNoAnswers(BeginsAgain):
    """A worker that gets through ``videos``; those in capitals have no usable output."""

    def __init__(self, videos: str) -> None:
        self.videos = videos
        self.drained = 0

    def run[TaskT, ResultT](
        self, factory: Any, tasks: Sequence[TaskT], on_death: Any, ahead: Any
    ) -> Iterator[Event[TaskT, ResultT]]:
        (task,) = tasks
        for number, video in enumerate(self.videos):
            name = f"{video}{number}"
            failed = failed_outcome(name, "teacher t gave NaN: frame 3; check its weights")
            yield Progressed(task, Note(name))
            if video.isupper():
                yield Progressed(task, Note(name, outcome=failed, unanswered=True))
            else:
                yield Progressed(task, Note(name, outcome=outcome(name)))

    def drain(self) -> None:
        self.drained += 1


@pytest.mark.parametrize(
    ("videos", "broken"),
    [
        ("A" * 9, ""),
        ("A" * 10, "10 of 10 videos: teacher t gave NaN: frame 3; check its weights"),
        ("a" * 10 + "A" * 10, ""),
        ("A" * 10 + "a" * 9, "10 of 19 videos: teacher t gave NaN: frame 3; check its weights"),
    ],
)
def test_a_teacher_without_answers_for_most_videos_ends_the_run(videos: str, broken: str) -> None:
    executor = FindsNoAnswers(videos)
    planned = tuple(rows_of(f"{video}{at}", at) for at, video in enumerate(videos))
    task = ExtractionTask(GroupSpec(Path("cache"), 64, UnitGroup(0, 1, planned), (), "fence"))
    ran = run_tasks(cast(Any, executor), ExtractionWorker, [task], 2, 100, NullProgress())
    assert ran.broken_teacher == broken
    assert ran.stopped_early == bool(broken)
    assert (executor.drained > 0) == bool(broken)
