"""Recomputes drawn rows of a cache from its videos: what no check of its own records can see."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.records import read_commit
from distinit.pipeline.cache.tables import column
from distinit.pipeline.cache.unit_tables import read_confidence
from distinit.pipeline.corpus.listing import Corpus, list_corpus
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.recompute.draw import DrawnVideo, draw_rows, rows_by_video
from distinit.pipeline.recompute.frames import DecodedFrame, frames_of, videos_by_digest
from distinit.pipeline.recompute.judge import JudgedRows, judge_rows
from distinit.pipeline.recompute.noise import NoiseFloor, measure_floor
from distinit.pipeline.teachers.base import Teacher
from distinit.pipeline.teachers.views import teacher_views
from distinit.schemas.errors import CorpusError, DecodeError
from distinit.schemas.teacher import TeacherRecord
from distinit.schemas.wording import counted, one_line
from distinit.stages.recompute_result import (
    DifferentRow,
    Recomputed,
    RecomputedTeacher,
    RecomputeRequest,
)
from distinit.stages.recorded_teachers import load_recorded

__all__ = ["recompute"]

_NOISE_FRAMES = 16  # on which the noise floor is measured
_HASH_BITS = 8  # another decoder changes a few bits of a perceptual hash, another frame many


@dataclass(frozen=True, slots=True)
class _ComputedFrame:
    """``problem``: how the frame differs from the cache; "" if it does not.

    ``outputs``: teacher -> [1, C]. ``pixels``: teacher -> [1, H, W, 3], for the noise floor.
    """

    row: int
    problem: str
    outputs: Mapping[str, np.ndarray]
    pixels: Mapping[str, np.ndarray]


@dataclass
class _Outputs:
    """What was recomputed for one teacher; ``frames``: for the noise floor, one per video."""

    teacher: Teacher
    rows: list[int] = field(default_factory=list)
    outputs: list[np.ndarray] = field(default_factory=list)
    frames: list[np.ndarray] = field(default_factory=list)


def recompute(
    path: Path, request: RecomputeRequest, *, progress: Progress | None = None
) -> Recomputed:
    """Draw rows of a complete cache, compute them again, and judge them.

    Raises:
        CacheError: The cache cannot be read, or has no rows.
        CorpusError: The videos cannot be listed, or none of the cache is among them.
        TeacherError: A teacher is not that of the cache, or is not available.
    """
    progress = progress or NullProgress()
    cache = TargetCache.open(path)
    teachers = load_recorded(cache, request.teachers, request.weights, device=request.device)
    seed = secrets.randbits(32) if request.seed is None else request.seed
    row_N, total = draw_rows(cache, request.rows, seed)
    videos = rows_by_video(cache, row_N)
    progress.message(f"hashing the videos in {request.videos} to find those that were drawn")
    corpus = list_corpus(request.videos, progress=progress)
    _refuse_other_videos(corpus, cache, request.videos)
    run = _Run(cache, corpus, teachers)
    progress.start("recompute", len(row_N), "rows")
    for video in videos:
        run.read(video)
        progress.advance(len(video.row_N))
    progress.finish()
    return Recomputed(
        seed=seed,
        rows=total,
        drawn=len(row_N),
        teachers=tuple(run.verdict(name) for name in teachers),
        not_checked=run.not_checked,
        not_checked_rows=run.not_checked_rows,
    )


def _refuse_other_videos(corpus: Corpus, cache: TargetCache, source: str) -> None:
    """Raise CorpusError if no video of the cache is in ``source``."""
    here = videos_by_digest(corpus)
    digests = (d for batch in cache.video_batches(("digest",)) for d in batch["digest"].to_pylist())
    if not any(digest in here for digest in digests):
        raise CorpusError(
            f"no video of the cache is in {source}",
            expected="the videos that the cache was made from, or some of them, with the same "
            "bytes: the pixels of re-encoded copies differ, so they cannot be used",
            found=counted(len(corpus.files), "other video"),
            remedy="give the folder of these videos; they are found by their content, not by name",
        )


class _Run:
    def __init__(self, cache: TargetCache, corpus: Corpus, teachers: Mapping[str, Teacher]) -> None:
        self.not_checked: dict[str, str] = {}
        self.not_checked_rows = 0
        self._cache = cache
        self._corpus = corpus
        self._here = videos_by_digest(corpus)
        self._views, self._view_of = teacher_views(teachers.values())
        self._outputs = {name: _Outputs(teacher) for name, teacher in teachers.items()}
        self._drawn: dict[int, tuple[DrawnVideo, int]] = {}  # row -> its video, and place in it
        self._other_frames: dict[int, str] = {}  # row -> how its frame differs from the cache

    def read(self, video: DrawnVideo) -> None:
        """Decode one video, and compute the outputs for its drawn frames."""
        file = self._here.get(video.digest)
        if file is None:
            self._leave_out(video, "not in the given videos")
            return
        self._drawn |= {row: (video, place) for place, row in enumerate(video.row_N.tolist())}
        row_of = dict(zip(video.frame_N.tolist(), video.row_N.tolist(), strict=True))
        try:
            frames = [
                self._computed(row_of[frame.index], frame, keep_pixels=place == 0)
                for place, frame in enumerate(
                    frames_of(self._corpus, file, video.frame_N, self._views)
                )
            ]
        except DecodeError as error:  # what was delivered before must not be used
            self._leave_out(video, f"cannot be decoded here: {error.problem}")
            return
        for frame in frames:
            self._keep(frame)
        lost = set(row_of.values()) - {frame.row for frame in frames}
        self._other_frames |= dict.fromkeys(lost, "the video has no such frame")

    def _leave_out(self, video: DrawnVideo, why: str) -> None:
        self.not_checked[video.path] = f"{why} ({counted(len(video.row_N), 'row')})"
        self.not_checked_rows += len(video.row_N)

    def _computed(self, row: int, frame: DecodedFrame, *, keep_pixels: bool) -> _ComputedFrame:
        pixels = {name: frame.views[view] for name, view in self._view_of.items()}
        outputs = {
            name: self._outputs[name].teacher.forward(pixels_1HWC)
            for name, pixels_1HWC in pixels.items()
            if row not in self._cache.index.unanswered(name)
        }
        video, place = self._drawn[row]
        kept = {name: view.copy() for name, view in pixels.items()} if keep_pixels else {}
        return _ComputedFrame(row, _frame_problem(video, place, frame), outputs, kept)

    def _keep(self, frame: _ComputedFrame) -> None:
        if frame.problem:
            self._other_frames[frame.row] = frame.problem
        for name, outputs_1C in frame.outputs.items():
            found = self._outputs[name]
            found.rows.append(frame.row)
            found.outputs.append(outputs_1C)
            if name in frame.pixels and len(found.frames) < _NOISE_FRAMES:
                found.frames.append(frame.pixels[name])

    def verdict(self, name: str) -> RecomputedTeacher:
        """Judge the rows of one teacher."""
        found, record = self._outputs[name], self._cache.teachers[name]
        floor = measure_floor(found.teacher, found.frames) if found.frames else NoiseFloor({})
        order = np.argsort(found.rows, kind="stable")
        row_N = np.array(found.rows, np.int64)[order]
        lost = sorted(self._other_frames.keys() - set(row_N.tolist()))
        different = [self._different(row, self._other_frames[row], np.inf) for row in lost]
        same = within = 0
        if len(row_N):
            outputs_NC = np.concatenate(found.outputs)[order]
            judged = judge_rows(
                record,
                self._cache.targets(name).stored(row_N),
                _confidence(self._cache, record, row_N),
                outputs_NC,
                floor.allowed,
            )
            reasons = self._reasons(row_N, judged, floor.allowed)
            different += [
                self._different(int(row), why, float(deviation))
                for row, why, deviation in zip(row_N, reasons, judged.deviation_N, strict=True)
                if why
            ]
            good_N = np.array([not why for why in reasons])
            same = int((judged.same_bits_N & good_N).sum())
            within = int(good_N.sum()) - same
        return RecomputedTeacher(
            teacher=name,
            checked=len(row_N) + len(lost),
            same_bits=same,
            within_noise=within,
            different=tuple(sorted(different, key=lambda row: -row.deviation)),
            noise=floor.measured,
            allowed=floor.allowed,
        )

    def _reasons(self, row_N: np.ndarray, judged: JudgedRows, allowed: float) -> list[str]:
        """Why each row is different; "" if it is not."""
        reasons = []
        for place, row in enumerate(row_N.tolist()):
            parts = [self._other_frames[row]] if row in self._other_frames else []
            if not judged.targets_agree_N[place]:
                parts.append(
                    f"its targets differ by {judged.deviation_N[place]:.2g} of their spread "
                    f"({allowed:.2g} is noise)"
                )
            if not judged.confidence_agrees_N[place]:
                parts.append("its confidence is not that of the recomputed targets")
            reasons.append("; ".join(parts))
        return reasons

    def _different(self, row: int, why: str, deviation: float) -> DifferentRow:
        video, place = self._drawn[row]
        frame = int(video.frame_N[place])
        finite = min(deviation, float(np.finfo(np.float32).max))
        return DifferentRow(row=row, video=video.path, frame=frame, why=why, deviation=finite)


def _frame_problem(video: DrawnVideo, place: int, frame: DecodedFrame) -> str:
    """How a decoded frame differs from what the frames table says of it; "" if it does not."""
    stored = (int(video.pts_N[place]), video.time_base[place])
    if stored != (frame.pts, frame.time_base):
        return (
            f"shown at {frame.pts} x {frame.time_base} s, the cache says {stored[0]} x "
            f"{one_line(stored[1])} s"
        )
    bits = (int(video.hash_N[place]) ^ frame.perceptual_hash).bit_count()
    if bits > _HASH_BITS:
        return f"another picture: {bits} of 64 bits of its perceptual hash differ"
    return ""


def _confidence(
    cache: TargetCache, record: TeacherRecord, row_N: np.ndarray
) -> dict[str, np.ndarray]:
    """The columns of the confidence table for ascending rows, each [N]; none for features."""
    if record.identity.target == "features":
        return {}
    capacity = cache.manifest.row_space.capacity
    parts: list[dict[str, np.ndarray]] = []
    for unit in np.unique(row_N // capacity).tolist():
        commit = read_commit(cache.layout, record, unit)
        table = read_confidence(cache.layout, record, commit, capacity)
        place_M = np.searchsorted(column(table, "row"), row_N[row_N // capacity == unit])
        names = [name for name in table.schema.names if name != "row"]
        parts.append({name: column(table, name)[place_M] for name in names})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
