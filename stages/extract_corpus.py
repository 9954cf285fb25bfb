"""Lists the corpus of an extraction and compares it with the videos that the cache knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.opening import read_cache_plan
from distinit.pipeline.cache.plan import PlannedRows
from distinit.pipeline.cache.records import read_manifest
from distinit.pipeline.cache.writer import CacheWriter
from distinit.pipeline.corpus.changes import (
    absent_videos,
    corpus_report,
    newly_gone,
    with_current_files,
)
from distinit.pipeline.corpus.listing import Corpus, list_corpus
from distinit.pipeline.corpus.spool import Spool
from distinit.pipeline.extraction.probing import Prober
from distinit.pipeline.progress import Progress
from distinit.schemas.corpus import CorpusReport, VideoFile
from distinit.schemas.errors import CorpusError
from distinit.schemas.extract import ExtractConfig
from distinit.schemas.wording import counted, one_line

__all__ = ["CurrentCorpus", "list_current_corpus"]

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class CurrentCorpus:
    """The corpus as it is at the start of a run.

    ``planned``: the videos that the cache had before this run, by id. ``frozen``: no video is
    added, planned again, or marked as gone or returned.
    """

    corpus: Corpus
    planned: dict[str, PlannedRows]
    report: CorpusReport
    frozen: bool = False

    @property
    def new_videos(self) -> list[VideoFile]:
        """Videos that are not in the plan of the cache."""
        if self.frozen:
            return []
        return [file for file in self.corpus.files if file.video_id not in self.planned]

    def record_in(self, writer: CacheWriter) -> None:
        """Record in the cache which of its videos exist now, and under which path."""
        latest = writer.plan.latest
        absent = absent_videos(self.corpus, latest)
        if self.frozen:
            files = with_current_files(self.corpus, latest, ())
            same = {v: replace(e, in_corpus=latest[v].in_corpus) for v, e in files.items()}
            writer.set_corpus(same, absent)
            return
        kept: frozenset[str] = frozenset()
        if self.report.keep_gone and absent:
            state = writer.state()
            stored = {v for v, outcome in state.outcomes.items() if outcome.status == "ok"}
            kept = absent & (stored - state.unanswered)
        writer.set_corpus(with_current_files(self.corpus, latest, kept), absent)

    def videos_to_retry(self, writer: CacheWriter, *, retry_failed: bool) -> list[VideoFile]:
        """Videos to plan again.

        They were removed before they were decoded and have returned, or they failed and
        ``retry_failed`` is set.
        """
        if self.frozen:
            return []
        statuses = {"gone", "failed"} if retry_failed else {"gone"}
        outcomes = writer.state().decoded  # videos with rows of other teachers keep them
        undecoded = {v for v, outcome in outcomes.items() if outcome.status in statuses}
        return [file for file in self.corpus.files if file.video_id in undecoded]


def list_current_corpus(
    config: ExtractConfig, spool: Spool, prober: Prober, progress: Progress
) -> CurrentCorpus:
    """List the corpus, compare it with the cache and report what has changed.

    Raises:
        CorpusError: As ``list_corpus``; and if no video of an unfinished cache is in the corpus, or
            more of the videos of a cache are gone than ``max_gone`` allows.
        CacheError: The cache cannot be read.
    """
    root = Path(config.cache)
    plan = read_cache_plan(root)
    planned = {} if plan is None else plan.latest
    known = {
        entry.path: entry.video.file
        # If several videos had the same path over time, the latest one is used.
        for entry in sorted(planned.values(), key=lambda entry: entry.in_corpus)
    }
    corpus = list_corpus(config.videos, known, spool=spool, visit=prober.visit, progress=progress)
    report = corpus_report(config.videos, corpus, planned, keep_gone=config.keep_gone)
    if config.repair:
        return CurrentCorpus(corpus, planned, report)
    for line in report.lines():
        progress.message(line)
    if planned and len(absent_videos(corpus, planned)) == len(planned):
        _report_unrelated(config, corpus, len(planned), progress)
    if not config.keep_gone:
        _refuse_too_many_gone(config, corpus, planned)
    for path, reason in corpus.unavailable.items():
        progress.message(f"failed: {path}: {reason}")
    return CurrentCorpus(corpus, planned, report)


def _report_unrelated(
    config: ExtractConfig, corpus: Corpus, planned: int, progress: Progress
) -> None:
    """Refuse a corpus without any video of an unfinished cache; warn if the cache is complete."""
    if not read_manifest(CacheLayout(Path(config.cache))).complete:
        raise CorpusError(
            f"none of the {counted(planned, 'video')} of the unfinished cache {config.cache} is "
            f"in {config.videos}",
            expected="the videos that the extraction started with, or some of them",
            found=counted(len(corpus.files), "other video"),
            remedy="give the folder of these videos, or use a new cache",
        )
    progress.message(
        f"warning: none of the {counted(len(corpus.files), 'given video')} is among the "
        f"{planned} of the cache {config.cache}; they are added to it"
        + ("" if config.keep_gone else ", and its own are left out of training")
        + ". Check that --cache is the folder you intended"
    )


def _refuse_too_many_gone(
    config: ExtractConfig, corpus: Corpus, planned: Mapping[str, PlannedRows]
) -> None:
    """Most videos are gone at once if --videos or --cache is the wrong folder."""
    trained_on = [entry for entry in planned.values() if entry.in_corpus]
    gone = sorted(one_line(path) for path in newly_gone(corpus, planned))
    if len(gone) <= config.max_gone * len(trained_on):
        return
    raise CorpusError(
        f"{len(gone)} of the {counted(len(trained_on), 'video')} of the cache {config.cache} are "
        f"not in {config.videos}; nothing was changed",
        expected=f"at most {config.max_gone:.0%} of them gone",
        found=f"gone: {', '.join(gone[:_SHOWN])}{', ...' if len(gone) > _SHOWN else ''}",
        remedy="give the videos that the cache was made from, or use another cache; to leave the "
        "others out of training, add --set max_gone=1; to keep them in training, add --keep-gone",
    )
