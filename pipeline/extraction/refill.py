"""Frames for a store beside a cache whose targets are there already: decoded, no teachers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from distinit.pipeline.cache.plan import PlannedRows
from distinit.pipeline.cache.writer import CacheWriter
from distinit.pipeline.corpus.listing import Corpus
from distinit.pipeline.corpus.source import VideoFile
from distinit.pipeline.frames.fill import UnitVideos, fill_units
from distinit.pipeline.frames.writer import FrameStoreWriter
from distinit.pipeline.progress import Progress
from distinit.schemas.errors import CorpusError, FrameStoreError
from distinit.schemas.frames import StoreCommit, UndecodableVideo
from distinit.schemas.manifest import VideoOutcome
from distinit.schemas.video import DecodeConfig
from distinit.schemas.wording import counted, one_line

__all__ = ["refill_store"]

_SHOWN = 5
_REMOVED = "removed from the corpus before its frames were written"


def refill_store(
    writer: CacheWriter,
    store: FrameStoreWriter,
    corpus: Corpus,
    decode: DecodeConfig,
    progress: Progress,
) -> None:
    """Write the units of ``store`` that are not there whole, though the cache has their targets.

    Videos that the corpus no longer has are left out: they are out of training as well. The caller
    holds both locks. Raises CorpusError if one is gone that is to stay in training (``keep_gone``),
    FrameStoreError if one has other frames than when its targets were computed, and
    StorageError when the disk refuses.
    """
    pending = {spec.group.first_unit for spec in writer.pending_groups()}
    done = [task for task in writer.plan.groups if task.first_unit not in pending]
    missing = set(store.pending_units(task.first_unit for task in done))
    if not missing:
        return
    latest, outcomes = writer.plan.latest, writer.state().outcomes
    units = {
        task.first_unit: _videos_of(
            [video for video in task.videos if latest[video.video_id] is video], outcomes, corpus
        )
        for task in done
        if task.first_unit in missing
    }
    progress.message(
        f"{counted(len(units), 'unit')} of the frame store missing or damaged: decoding again, "
        "without teachers"
    )
    _tell_removed(units.values(), latest, progress)
    progress.start("frames", sum(len(videos.files) for videos in units.values()), "videos")
    fill_units(store, corpus.source, units, decode, progress)
    progress.finish()
    for unit in units:
        _check_counts(store, unit, outcomes, units[unit])


def _tell_removed(
    units: Iterable[UnitVideos], latest: Mapping[str, PlannedRows], progress: Progress
) -> None:
    removed = [v.video_id for videos in units for v in videos.failed if v.error == _REMOVED]
    if removed:
        names = sorted(one_line(latest[video_id].path) for video_id in removed)
        progress.message(
            f"{counted(len(removed), 'removed video')} left out of the frame store: "
            f"{', '.join(names[:_SHOWN])}; if they come back, delete the commit records of their "
            "units there and extract again"
        )


def _videos_of(
    entries: Sequence[PlannedRows], outcomes: Mapping[str, VideoOutcome], corpus: Corpus
) -> UnitVideos:
    present = {file.video_id: file for file in corpus.files}
    files: list[VideoFile] = []
    failed, gone = [], []
    for entry in entries:
        outcome = outcomes[entry.video_id]
        if outcome.status in ("failed", "gone"):
            error = outcome.error or ""
            failed.append(
                UndecodableVideo(video_id=entry.video_id, digest=entry.digest, error=error)
            )
        elif outcome.status != "spilled":  # the frames of a spilled one come with a later unit
            if entry.video_id in present:
                files.append(present[entry.video_id])
            elif entry.in_corpus:
                gone.append(entry.path)
            else:
                failed.append(
                    UndecodableVideo(video_id=entry.video_id, digest=entry.digest, error=_REMOVED)
                )
    if gone:
        raise CorpusError(
            f"{counted(len(gone), 'video')} whose frames are missing: not in {corpus.root}",
            expected="the videos that the extraction began with",
            found="missing: " + ", ".join(sorted(gone)[:_SHOWN]),
            remedy="bring them back, or leave --frames out",
        )
    fps = {entry.video_id: entry.probed_fps for entry in entries}
    return UnitVideos(tuple(files), tuple(failed), fps)


def _check_counts(
    store: FrameStoreWriter, unit: int, outcomes: Mapping[str, VideoOutcome], videos: UnitVideos
) -> None:
    """Raise FrameStoreError, and take the unit back, unless frames are those of the targets."""
    counts = _frame_counts(store.read_commit(unit))
    for file in videos.files:
        wanted, found = outcomes[file.video_id].frame_count, counts.get(file.video_id, 0)
        if found != wanted:
            store.remove_commit(unit)
            raise FrameStoreError(
                f"{file.path} is decoded otherwise than when its targets were computed",
                expected=f"{wanted} frames",
                found=f"{found} frames",
                remedy="use the ffmpeg and the --set decode... values of the extraction, or "
                "extract into a new cache",
            )


def _frame_counts(commit: StoreCommit) -> dict[str, int]:
    counts: dict[str, int] = {}
    for run in commit.videos:
        counts[run.video_id] = counts.get(run.video_id, 0) + run.frame_count
    return counts
