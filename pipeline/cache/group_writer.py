"""Writes the rows of one unit group: all of them or none."""

from __future__ import annotations

import os
import shutil
import uuid
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pyarrow.compute as pc

from distinit.pipeline.cache.encoding import array_specs
from distinit.pipeline.cache.fence import behind_fence
from distinit.pipeline.cache.group_spec import GroupSpec
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.plan import PlannedRows
from distinit.pipeline.cache.same_frames import check_same_frames
from distinit.pipeline.cache.tables import column, read_table
from distinit.pipeline.cache.target_rows import LossSums, TargetRows, target_rows
from distinit.pipeline.cache.unit import FrameRows, StagedUnit, UnitBuffer
from distinit.pipeline.records import file_entry, write_record
from distinit.pipeline.storage import move_synced, storage_errors
from distinit.pipeline.units import unit_name
from distinit.schemas.errors import CacheError
from distinit.schemas.manifest import UnitCommit, VideoOutcome, failed_outcome
from distinit.schemas.tables import FRAMES_SCHEMA
from distinit.schemas.teacher import TeacherRecord

__all__ = ["GroupWriter"]

_FRAME_COLUMNS = ("frame_index", "pts", "perceptual_hash")


class GroupWriter:
    """Writes the rows of one unit group. Nothing is visible before ``commit``; not thread-safe.

    Videos may be added in any order, interleaved, and in blocks of any size. Memory: the encoded
    rows of one unit per teacher. Full units of a long video are staged on disk.
    """

    def __init__(self, spec: GroupSpec) -> None:
        self.spec = spec
        self._layout = CacheLayout(spec.root)
        name = f"{unit_name(spec.group.first_unit)}.{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._staging = self._layout.staging / name
        self._videos = {video.video_id: video for video in spec.videos}
        self._rows: dict[str, int] = {}  # rows added so far
        self._sampled: Counter[str] = Counter()  # the same, and those beyond the reserved rows
        self._last_index: dict[str, int] = {}
        self._spilled: set[str] = set()
        self._outcomes: dict[str, VideoOutcome] = {}  # of the videos to decode
        self._refused: dict[str, str] = {}  # reason
        self._precision_loss: dict[str, dict[str, LossSums]] = {}  # by video, then teacher
        self._staged: dict[int, StagedUnit] = {}
        self._buffer: UnitBuffer | None = None

    def __enter__(self) -> GroupWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    def abort(self) -> None:
        """Remove what is not committed. Idempotent; called on leaving the context."""
        self._buffer = None
        self._staged.clear()
        shutil.rmtree(self._staging, ignore_errors=True)

    def add(
        self,
        video: PlannedRows,
        frame_index_N: np.ndarray,
        pts_N: np.ndarray,
        time_base: str,
        hash_N: np.ndarray,
        logits: Mapping[str, np.ndarray],
    ) -> bool:
        """Encode and add the next rows of one video: ``encode``, then ``add_encoded``.

        Args:
            video: One of ``spec.videos``.
            frame_index_N: 0-based frame indices, ascending over all calls for this video.
            pts_N: Presentation times in units of ``time_base``.
            time_base: Seconds, as "1/12800".
            hash_N: Perceptual hashes, uint64.
            logits: Teacher id -> fp32 [N, C], for exactly the teachers of the spec.

        Returns:
            False once the video has more rows than the plan reserved: see ``overflow``.

        Raises:
            CacheError: Shapes or order are wrong, or the video does not belong to this group.
            TeacherError: A target is not finite or does not fit its encoding.
        """
        frames = FrameRows.of(video.video_id, time_base, frame_index_N, pts_N, hash_N)
        return self.add_encoded(video, frames, self.encode(frames, logits))

    def encode(
        self, frames: FrameRows, logits: Mapping[str, np.ndarray]
    ) -> Mapping[str, TargetRows]:
        """The first half of ``add``, which changes nothing: several threads may encode at once."""
        rows = len(frames)
        expected = {t.id: ("float32", (rows, t.identity.classes)) for t in self.spec.teachers}
        found = {name: (values.dtype.name, values.shape) for name, values in logits.items()}
        lengths = {len(frames.pts), len(frames.perceptual_hash)}
        if found != expected or lengths != {rows}:
            raise CacheError(
                f"the rows of video {frames.video_id} have inconsistent shapes",
                expected=expected,
                found=f"{found}, pts and hash of {sorted(lengths)}",
            )
        return {t.id: target_rows(logits[t.id], t) for t in self.spec.teachers}

    def add_encoded(
        self, video: PlannedRows, frames: FrameRows, targets: Mapping[str, TargetRows]
    ) -> bool:
        """The second half of ``add``: stores what ``encode`` returned."""
        self._check_order(frames)
        done = self._rows.get(video.video_id, 0)
        if video.video_id in self._spilled or done + len(frames) > video.reserved_rows:
            self.overflow(video, len(frames))
            return False
        self._sampled[video.video_id] += len(frames)
        self._place(video.first_row + done, frames, targets)
        self._rows[video.video_id] = done + len(frames)
        if len(frames):
            self._last_index[video.video_id] = int(frames.frame_index[-1])
        return True

    def overflow(self, video: PlannedRows, rows: int) -> None:
        """Count ``rows`` more rows of a video that has more rows than the plan reserved.

        All its rows in this group are dropped: ``finish_video`` records it as spilled, with the
        number of rows to reserve for it. Its teacher outputs are no longer needed.
        """
        self._require_open(video.video_id)
        self._sampled[video.video_id] += rows
        if video.video_id not in self._spilled:
            self._drop_rows(video)
            self._spilled.add(video.video_id)

    def note_precision_loss(self, video: PlannedRows, sums: Mapping[str, LossSums]) -> None:
        """Record, by teacher, what its arithmetic changed in some frames of a video."""
        self._precision_loss[video.video_id] = dict(sums)

    def restart_video(self, video: PlannedRows) -> None:
        """Drop the rows of a video that is not finished; all of them are added once more."""
        self._require_open(video.video_id)
        self._drop_rows(video)
        self._spilled.discard(video.video_id)
        self._sampled.pop(video.video_id, None)
        self._last_index.pop(video.video_id, None)

    def finish_video(self, outcome: VideoOutcome) -> VideoOutcome:
        """Record that a video was decoded to its end; returns the outcome as it is recorded.

        Its ``rows`` are all rows that were added, including those beyond the reserved ones.
        A video with more rows than reserved becomes ``spilled``, to be planned again. If that
        happens twice, it becomes ``failed``: its decoding is not deterministic.
        """
        video_id = self._require_open(outcome.video_id)
        outcome = outcome.model_copy(update={"rows": self._sampled[video_id]})
        if video_id in self._spilled:
            if video_id in self.spec.cannot_spill:
                return self.fail_video(
                    outcome.model_copy(
                        update={"error": "each decoding of it gives another number of frames"}
                    )
                )
            outcome = outcome.model_copy(update={"status": "spilled"})
        elif outcome.status != "ok":
            return self.fail_video(outcome)
        self._outcomes[video_id] = outcome
        return outcome

    def fail_video(self, outcome: VideoOutcome) -> VideoOutcome:
        """Record that a video failed, and drop its rows in this group."""
        video_id = self._require_open(outcome.video_id)
        self._drop_rows(self._videos[video_id])
        failed = failed_outcome(video_id, outcome.error or "")
        self._outcomes[video_id] = failed
        return failed

    def refuse_video(self, outcome: VideoOutcome) -> VideoOutcome:
        """Record that a teacher has no usable output for a video, which fails.

        If other teachers already have rows of it, these rows stay, with NaN for these teachers.
        """
        known = {before.video_id: before for before in self.spec.committed_outcomes}
        if outcome.video_id not in known:
            return self.fail_video(outcome)
        video_id = self._require_open(outcome.video_id)
        self._drop_rows(self._videos[video_id])
        self._refused[video_id] = outcome.error or ""
        self._outcomes[video_id] = known[video_id]
        return outcome

    def commit(self) -> tuple[UnitCommit, ...]:
        """Publish all units of the group; their commit records are written last.

        Returns one record per unit and teacher.

        Raises:
            CacheError: A video was neither finished nor failed.
            CacheMismatchError: Another teacher saw different frames of these videos.
            StorageError: The disk cannot be written; the group is still pending.
            LockedError: Another run has taken over the cache; nothing was published.
        """
        if missing := self._videos.keys() - self._outcomes.keys():
            raise CacheError(
                "a unit group cannot be committed before all its videos are finished or failed",
                expected="finish_video or fail_video for each",
                found=f"nothing for {sorted(missing)[:3]}",
            )
        with storage_errors(self._layout.root):
            self._place_unanswered()
            self._stage_buffer()
            for unit in self.spec.group.unit_range:
                if unit not in self._staged:
                    self._buffer = self._new_buffer(unit)
                    self._stage_buffer()
            check_same_frames(self.spec, self._outcomes, self._staged)
            with behind_fence(self._layout.fence, self.spec.fence):
                self._publish()
                commits = self._write_commits()
        self.abort()
        return commits

    def _check_order(self, frames: FrameRows) -> None:
        video_id = self._require_open(frames.video_id)
        before = self._last_index.get(video_id, -1)
        if (np.diff(frames.frame_index, prepend=before) <= 0).any():
            raise CacheError(
                f"frames of video {video_id} are out of order",
                expected=f"ascending frame indices above {before}",
                found=frames.frame_index[:5].tolist(),
            )

    def _require_open(self, video_id: str) -> str:
        if video_id not in self._videos or video_id in self._outcomes:
            raise CacheError(
                f"no more rows of video {video_id} can be added to this unit group",
                expected=sorted(self._videos.keys() - self._outcomes.keys())[:5],
                found=video_id,
            )
        return video_id

    def _new_buffer(self, unit: int) -> UnitBuffer:
        return UnitBuffer(unit, self.spec.capacity, self.spec.teachers)

    def _place_unanswered(self) -> None:
        """Place the rows that other teachers have of videos for which these have no output."""
        refused = (self._videos[video_id] for video_id in self._refused)
        for video in (*self.spec.unanswered, *refused):
            for unit in self.spec.group.unit_range:
                stored = read_table(self._layout.frames(unit), FRAMES_SCHEMA)
                mine = stored.filter(pc.equal(stored.column("video_id"), video.video_id))
                if mine.num_rows:
                    frames = FrameRows(
                        video.video_id,
                        mine.column("time_base")[0].as_py(),
                        *(column(mine, name) for name in _FRAME_COLUMNS),
                    )
                    self._place(int(column(mine, "row")[0]), frames, None)

    def _place(self, row: int, frames: FrameRows, targets: Mapping[str, TargetRows] | None) -> None:
        """Cut rows where units end; units that are full are staged on disk."""
        capacity, start = self.spec.capacity, 0
        while start < len(frames):
            unit, inside = divmod(row + start, capacity)
            if self._buffer is None or self._buffer.unit != unit:
                self._stage_buffer()
                self._buffer = self._new_buffer(unit)
            stop = min(len(frames), start + capacity - inside)
            part = targets and {name: rows[start:stop] for name, rows in targets.items()}
            self._buffer.put(inside, frames[start:stop], part)
            start = stop

    def _drop_rows(self, video: PlannedRows) -> None:
        if self.spec.group.units > 1:  # a group of several units has one video
            self.abort()
        elif self._buffer is not None:
            rows = self._rows.get(video.video_id, 0)
            self._buffer.clear(video.first_row - self._buffer.unit * self.spec.capacity, rows)
        self._rows.pop(video.video_id, None)
        self._precision_loss.pop(video.video_id, None)

    def _stage_buffer(self) -> None:
        if self._buffer is None:
            return
        unit = self._buffer.unit
        self._staged[unit] = self._buffer.stage(self._layout, self._staging / unit_name(unit))
        self._buffer = None

    def _publish(self) -> None:
        for unit, staged in self._staged.items():
            for record in self.spec.teachers:
                # A crash in mid-commit may have left files of an earlier attempt.
                self._layout.commit(record.id, unit).unlink(missing_ok=True)
                for name in self._array_names(record) if not staged.rows else ():
                    self._layout.shard(record.id, name, unit).unlink(missing_ok=True)
        for unit, staged in self._staged.items():
            if not self.spec.committed_outcomes:
                move_synced(staged.frames_file, self._layout.frames(unit))
            for teacher in staged.teachers.values():
                teacher.publish()

    def _array_names(self, record: TeacherRecord) -> tuple[str, ...]:
        return tuple(s.name for s in array_specs(record.encoding, record.identity.classes))

    def _write_commits(self) -> tuple[UnitCommit, ...]:
        outcomes = {v: _gone(v) for v in self.spec.gone}
        outcomes |= {v: _superseded(v) for v in self.spec.superseded} | self._outcomes
        # Committed outcomes stay as they are: the teachers of a unit must agree on its videos.
        outcomes |= {outcome.video_id: outcome for outcome in self.spec.committed_outcomes}
        commits = []
        for unit, staged in sorted(self._staged.items()):
            frames = self._layout.frames(unit)
            entry = self.spec.committed_frames.get(unit) or file_entry(frames)
            ending = [v for v in self.spec.group.videos if self._ends_in(v, unit)]
            for record in self.spec.teachers:
                teacher = staged.teachers[record.id]
                files = {path: entry for path, (_, entry) in teacher.files.items()}
                files[frames] = entry
                commit = UnitCommit.sealed(
                    unit=unit,
                    teacher_fingerprint=record.fingerprint,
                    rows=staged.rows,
                    files={self._layout.relative(path): e for path, e in sorted(files.items())},
                    content_sha256=teacher.content_sha256,
                    videos=tuple(outcomes[v.video_id] for v in ending),
                    fidelity=teacher.fidelity,
                    feature_fidelity=teacher.feature_fidelity,
                    unanswered=tuple(video.video_id for video in self.spec.unanswered),
                    refused=self._refused,
                    answers=teacher.answers,
                    **self._precision_loss_of(record, unit),
                )
                write_record(commit, self._layout.commit(record.id, unit))
                commits.append(commit)
        return tuple(commits)

    def _precision_loss_of(self, record: TeacherRecord, unit: int) -> dict[str, LossSums | None]:
        """That of the group, for its first unit: key of the commit -> sums."""
        if unit != self.spec.group.first_unit:
            return {}
        key = "feature_precision_loss" if record.identity.target == "features" else "precision_loss"
        return {key: next((sums.get(record.id) for sums in self._precision_loss.values()), None)}

    def _ends_in(self, video: PlannedRows, unit: int) -> bool:
        return video.last_row // self.spec.capacity == unit


def _gone(video_id: str) -> VideoOutcome:
    return VideoOutcome(
        video_id=video_id,
        status="gone",
        frame_count=0,
        width=0,
        height=0,
        duration_seconds=0.0,
        error="removed from the corpus before it was decoded",
    )


def _superseded(video_id: str) -> VideoOutcome:
    return failed_outcome(video_id, "it was planned again: its rows lie in a later unit")
