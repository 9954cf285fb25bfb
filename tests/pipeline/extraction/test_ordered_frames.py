"""Frames of videos that are decoded at once are stored as if they were decoded in turn."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import numpy as np
from helpers.caches import make_planned
from hypothesis import given, settings
from hypothesis import strategies as st

from distinit.pipeline.cache.plan import PlannedRows
from distinit.pipeline.extraction.ordered_frames import OrderedFrames, WaitingRoom
from distinit.pipeline.frames.layout import StoreLayout
from distinit.pipeline.frames.writer import FrameStoreWriter, UnitFrameWriter
from distinit.schemas.frames import FrameGeometry

COUNTS = (3, 0, 5, 2)  # frames per video
VIDEOS = [PlannedRows(make_planned(f"v{at}", 8), 8 * at) for at in range(len(COUNTS))]


def frame(position: int, number: int) -> np.ndarray:
    return np.full((1, 16, 16, 3), 40 * position + number, np.uint8)


def open_unit(root: Path) -> UnitFrameWriter:
    return FrameStoreWriter(root, FrameGeometry(), "0" * 64).open_unit(0)


def committed(unit: UnitFrameWriter, root: Path) -> tuple[bytes, str]:
    commit = unit.commit()
    return StoreLayout(root).unit(0).read_bytes(), commit.model_dump_json()


def decide(position: int, unit: UnitFrameWriter) -> None:
    """The third video fails, the fourth is damaged."""
    video = VIDEOS[position]
    if position == 2:
        unit.fail_video(video.video_id, video.digest, "torn")
    if position == 3:
        unit.note_damage(video.video_id, video.digest, "short")


def in_turn(root: Path) -> tuple[bytes, str]:
    unit = open_unit(root)
    for position, count in enumerate(COUNTS):
        video = VIDEOS[position]
        for number in range(count):
            unit.append(
                video.video_id,
                video.digest,
                number,
                frame(position, number),
                video.video.probe.fps,
            )
        decide(position, unit)
    return committed(unit, root)


# Each video takes part once per frame and once for its end.
TURNS = [position for position, count in enumerate(COUNTS) for _ in range(count + 1)]


@settings(max_examples=30, deadline=None)
@given(st.permutations(TURNS))
def test_the_unit_is_the_same_in_whatever_order_frames_come(turns: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        expected = in_turn(Path(folder) / "in turn")
        unit = open_unit(Path(folder) / "mixed")
        frames = OrderedFrames(unit, VIDEOS, WaitingRoom())
        seen = [0] * len(COUNTS)
        for position in turns:
            number = seen[position]
            seen[position] += 1
            if number < COUNTS[position]:
                frames.append(position, number, frame(position, number))
            else:
                frames.finish(position, lambda unit, at=position: decide(at, unit))
        assert committed(unit, Path(folder) / "mixed") == expected


def test_dropped_frames_are_not_stored_whether_the_turn_of_their_video_has_come_or_not(
    tmp_path: Path,
) -> None:
    unit = open_unit(tmp_path)
    frames = OrderedFrames(unit, VIDEOS[:3], WaitingRoom())
    for position in (0, 1, 2):
        frames.append(position, 0, frame(position, 0))
    frames.drop(0)
    frames.drop(1)
    assert [frames.is_dropped(at) for at in range(3)] == [True, True, False]
    frames.append(0, 1, frame(0, 1))
    frames.append(1, 1, frame(1, 1))
    for position in (2, 1, 0):
        frames.finish(position, lambda unit: None)
    commit = unit.commit()
    assert [rows.video_id for rows in commit.videos] == [VIDEOS[2].video_id]


def test_a_later_video_waits_when_memory_is_full_and_the_first_never_does(tmp_path: Path) -> None:
    unit = open_unit(tmp_path)
    frames = OrderedFrames(unit, VIDEOS[:2], WaitingRoom(max_bytes=1))
    frames.append(1, 0, frame(1, 0))
    stored = threading.Event()

    def append_later() -> None:
        frames.append(1, 1, frame(1, 1))
        stored.set()

    thread = threading.Thread(target=append_later, daemon=True)
    thread.start()
    for number in range(3):
        frames.append(0, number, frame(0, number))
    assert not stored.wait(0.2)
    frames.finish(0, lambda unit: None)
    thread.join(60)
    assert stored.is_set()
    frames.finish(1, lambda unit: None)
    assert [rows.frame_count for rows in unit.commit().videos] == [3, 2]


def test_stopping_ends_the_wait(tmp_path: Path) -> None:
    with open_unit(tmp_path) as unit:
        frames = OrderedFrames(unit, VIDEOS[:2], WaitingRoom(max_bytes=1))
        frames.append(1, 0, frame(1, 0))
        thread = threading.Thread(target=frames.append, args=(1, 1, frame(1, 1)), daemon=True)
        thread.start()
        frames.stop()
        thread.join(60)
        assert not thread.is_alive()
