"""Writes missing units of a frame store, without teachers, when their targets are in the cache."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from distinit.pipeline.cache.plan import PlannedRows
from distinit.pipeline.cache.writer import CacheWriter
from distinit.pipeline.corpus.listing import Corpus
from distinit.pipeline.frames.fill import UnitVideos, fill_units
from distinit.pipeline.frames.writer import FrameStoreWriter
from distinit.pipeline.progress import Progress
from distinit.schemas.corpus import VideoFile
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
    """Write the units of ``store`` that are missing or damaged and whose targets are in the cache.

    Videos that were removed from the corpus are left out: they are not used in training either.
    The caller holds both locks.

    Raises:
        CorpusError: A removed video is to stay in training (``keep_gone``).
        FrameStoreError: A video has a different number of frames than when its targets were
            computed.
        StorageError: The store cannot be written.
    """
    pending = {spec.group.first_unit for spec in writer.pending_groups()}
    done = [group for group in writer.plan.groups if group.first_unit not in pending]
    missing = set(store.pending_units(group.first_unit for group in done))
    if not missing:
        return
    latest, outcomes = writer.plan.latest, writer.state().outcomes
    units = {
        group.first_unit: _videos_of(
            [video for video in group.videos if latest[video.video_id] is video], outcomes, corpus
        )
        for group in done
        if group.first_unit in missing
    }
    progress.message(
        f"{counted(len(units), 'unit')} of the frame store missing or damaged: decoding their "
        "videos again, without teachers"
    )
    _report_removed(units.values(), latest, progress)
    progress.start("frames", sum(len(videos.files) for videos in units.values()), "videos")
    fill_units(store, corpus.source, units, decode, progress)
    progress.finish()
    for unit in units:
        _check_counts(store, unit, outcomes, units[unit])


def _report_removed(
    units: Iterable[UnitVideos], latest: Mapping[str, PlannedRows], progress: Progress
) -> None:
    removed = [v.video_id for videos in units for v in videos.failed if v.error == _REMOVED]
    if removed:
        names = sorted(one_line(latest[video_id].path) for video_id in removed)
        progress.message(
            f"{counted(len(removed), 'removed video')} left out of the frame store: "
            f"{', '.join(names[:_SHOWN])}; if they come back, delete the commit records of their "
            "units in the store and extract again"
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
        elif outcome.status != "spilled":  # frames of a spilled video are stored with a later unit
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
            expected="the videos that the extraction started with",
            found="missing: " + ", ".join(sorted(gone)[:_SHOWN]),
            remedy="restore them, or leave out --frames",
        )
    fps = {entry.video_id: entry.video.probe.fps for entry in entries}
    return UnitVideos(tuple(files), tuple(failed), fps)


def _check_counts(
    store: FrameStoreWriter, unit: int, outcomes: Mapping[str, VideoOutcome], videos: UnitVideos
) -> None:
    """Raise FrameStoreError, and revoke the unit, unless the targets have as many frames."""
    counts = _frame_counts(store.read_commit(unit))
    for file in videos.files:
        expected, found = outcomes[file.video_id].frame_count, counts.get(file.video_id, 0)
        if found != expected:
            store.remove_commit(unit)
            raise FrameStoreError(
                f"decoding {file.path} gives different frames than when its targets were computed",
                expected=f"{expected} frames",
                found=f"{found} frames",
                remedy="use the ffmpeg and the --set decode... values of the extraction, or "
                "extract into a new cache",
            )


def _frame_counts(commit: StoreCommit) -> dict[str, int]:
    counts: dict[str, int] = {}
    for rows in commit.videos:
        counts[rows.video_id] = counts.get(rows.video_id, 0) + rows.frame_count
    return counts
