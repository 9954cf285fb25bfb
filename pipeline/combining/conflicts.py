"""Compares the rows of videos that several sources have: they must be equal bit by bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from distinit.pipeline.cache.encoding import decode
from distinit.pipeline.cache.target_rows import TargetRows
from distinit.pipeline.cache.unit import FrameRows
from distinit.pipeline.combining.blueprint import Origin
from distinit.pipeline.combining.rows import RowReader, equal_bits
from distinit.pipeline.progress import Progress
from distinit.schemas.combining import RowConflict
from distinit.schemas.teacher import TeacherRecord

__all__ = ["Conflicts", "find_conflicts"]

_BLOCK_ROWS = 1_024
_KEPT = 10_000
_FRAME_COLUMNS = ("frame_index", "pts", "perceptual_hash")
_OUTCOME = ("frame_count", "width", "height")


@dataclass
class Conflicts:
    """``listed``: the first 10,000 of ``count`` conflicts.

    ``unlike``: digest -> sources whose frames are not those of the first source.
    ``compared``: rows that were compared.
    """

    listed: list[RowConflict] = field(default_factory=list)
    count: int = 0
    unlike: dict[str, set[int]] = field(default_factory=dict)
    compared: int = 0

    def add(self, conflict: RowConflict) -> None:
        self.count += 1
        if len(self.listed) < _KEPT:
            self.listed.append(conflict)


def find_conflicts(
    readers: Sequence[RowReader],
    teacher_ids: Mapping[str, Sequence[str | None]],
    candidates: Mapping[str, Sequence[Origin]],
    progress: Progress,
) -> Conflicts:
    """Compare every row that two or more sources have, with the first source that has it."""
    conflicts = Conflicts()
    shared = {digest: found for digest, found in sorted(candidates.items()) if len(found) > 1}
    progress.start("compare", len(shared), "videos")
    for origins in shared.values():
        ok = [o for o in origins if readers[o.source].source.decoded[o.video_id].status == "ok"]
        for other in ok[1:]:
            _compare_frames(conflicts, readers, ok[0], other)
        for name, ids in teacher_ids.items():
            _compare_teacher(conflicts, readers, name, ids, ok)
        progress.advance()
    progress.finish()
    return conflicts


def _compare_frames(
    conflicts: Conflicts, readers: Sequence[RowReader], first: Origin, other: Origin
) -> None:
    before = conflicts.count
    pair = _Pair(readers, first, other)
    for name, count, other_count in pair.outcome_differences():
        conflicts.add(pair.conflict(None, None, name, pair.both(count, other_count)))
    for start, stop in pair.blocks():
        there, now = (r.frames(o.video_id, start, stop) for r, o in pair.sides)
        for row in np.flatnonzero(_frames_differ(there, now)).tolist():
            detail = ", ".join(_frame_details(pair, there, now, row))
            conflicts.add(pair.conflict(int(there.frame_index[row]), None, "frame", detail))
    if conflicts.count > before:
        conflicts.unlike.setdefault(pair.digest, set()).add(other.source)


def _frames_differ(a: FrameRows, b: FrameRows) -> np.ndarray:
    differ_N = np.full(len(a), a.time_base != b.time_base)
    for name in _FRAME_COLUMNS:
        differ_N |= getattr(a, name) != getattr(b, name)
    return differ_N


def _frame_details(pair: _Pair, a: FrameRows, b: FrameRows, row: int) -> Iterator[str]:
    if a.time_base != b.time_base:
        yield f"time_base: {pair.both(a.time_base, b.time_base)}"
    for name in _FRAME_COLUMNS:
        values = [int(getattr(side, name)[row]) for side in (a, b)]
        if values[0] != values[1]:
            yield f"{name}: {pair.both(*values)}"


def _compare_teacher(
    conflicts: Conflicts,
    readers: Sequence[RowReader],
    name: str,
    ids: Sequence[str | None],
    origins: Sequence[Origin],
) -> None:
    """Compare the targets of one teacher with those of the first source that has them."""
    answered = [
        (o, there)
        for o in origins
        if (there := ids[o.source]) is not None
        and readers[o.source].source.answers(there, o.video_id)
    ]
    for other, other_id in answered[1:]:
        first, first_id = answered[0]
        pair = _Pair(readers, first, other)
        if other.source in conflicts.unlike.get(pair.digest, ()):
            continue  # rows of different frames
        record = readers[first.source].source.records[first_id]
        for start, stop in pair.blocks():
            a = readers[first.source].targets(first_id, first.video_id, start, stop)
            b = readers[other.source].targets(other_id, other.video_id, start, stop)
            conflicts.compared += stop - start
            for row in np.flatnonzero(~equal_bits(a, b)).tolist():
                frame = readers[first.source].frames(first.video_id, start + row, start + row + 1)
                detail = _target_detail(a[row : row + 1], b[row : row + 1], record)
                number = int(frame.frame_index[0])
                conflicts.add(pair.conflict(number, name, "targets", detail))


def _target_detail(a: TargetRows, b: TargetRows, record: TeacherRecord) -> str:
    """Which stored columns differ in one row, and by how much the targets do."""
    pairs = [*((n, v, b.arrays[n]) for n, v in a.arrays.items())]
    pairs += [(n, v, b.confidence[n]) for n, v in a.confidence.items()]
    names = [name for name, there, now in pairs if there.tobytes() != now.tobytes()]
    x_1C, y_1C = (
        decode(s.arrays, record.encoding, record.identity.classes, s.confidence.get("log_z"))
        for s in (a, b)
    )
    largest = float(np.abs(x_1C.astype(np.float64) - y_1C).max())
    return f"{', '.join(names)} differ; largest difference of a target {largest:.4g}"


@dataclass(frozen=True)
class _Pair:
    """One video in two sources."""

    readers: Sequence[RowReader]
    first: Origin
    other: Origin

    @property
    def sides(self) -> tuple[tuple[RowReader, Origin], ...]:
        return tuple((self.readers[o.source], o) for o in (self.first, self.other))

    @property
    def digest(self) -> str:
        return self.readers[self.first.source].source.entries[self.first.video_id].digest

    def both(self, value: object, other: object) -> str:
        """Two values, with the number of the cache of each."""
        numbers = self.first.source + 1, self.other.source + 1
        return f"{value} in cache {numbers[0]}, {other} in cache {numbers[1]}"

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Rows that both have, in blocks of bounded size."""
        rows = min(reader.extent(origin.video_id)[1] for reader, origin in self.sides)
        for start in range(0, rows, _BLOCK_ROWS):
            yield start, min(start + _BLOCK_ROWS, rows)

    def outcome_differences(self) -> Iterator[tuple[str, int, int]]:
        a, b = (reader.source.decoded[origin.video_id] for reader, origin in self.sides)
        for name in (*_OUTCOME, "rows"):
            if getattr(a, name) != getattr(b, name):
                yield name, getattr(a, name), getattr(b, name)

    def conflict(
        self, frame: int | None, teacher: str | None, what: str, detail: str
    ) -> RowConflict:
        entry = self.readers[self.first.source].source.entries[self.first.video_id]
        return RowConflict(
            path=entry.path,
            digest=self.digest,
            frame_index=frame,
            teacher=teacher,
            what=what,
            sources=(self.first.source + 1, self.other.source + 1),
            detail=detail,
        )
