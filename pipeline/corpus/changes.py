"""Compares the current corpus with that of a cache. Videos are identified by their bytes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from distinit.pipeline.cache.plan import PlannedRows
from distinit.pipeline.corpus.listing import Corpus
from distinit.schemas.corpus import CorpusReport, Names

__all__ = ["absent_videos", "corpus_report", "newly_gone", "with_current_files"]


def corpus_report(
    source: str, corpus: Corpus, latest: Mapping[str, PlannedRows], *, keep_gone: bool
) -> CorpusReport:
    """Which videos are new, changed, gone, returned, renamed, duplicate or unreadable.

    Args:
        source: Folder, list or URL that the corpus was listed from.
        corpus: The current corpus.
        latest: The planned videos of the cache, by id.
        keep_gone: Whether videos that are gone stay in training.
    """
    earlier = [latest[video_id] for video_id in absent_videos(corpus, latest)]
    read_paths = _read_paths(corpus)
    overwritten = [entry for entry in earlier if entry.path in read_paths]
    replaced = {entry.path for entry in overwritten}
    known = [(latest[f.video_id], f) for f in corpus.files if f.video_id in latest]
    names = {file.path for file in corpus.files if file.video_id not in latest}
    return CorpusReport(
        source=source,
        videos=len(corpus.files) + len(corpus.unavailable),
        new=Names.of(names - replaced),
        # Not reported again once the cache has the new bytes and no longer trains on the old ones.
        changed=Names.of({e.path for e in overwritten if e.in_corpus or e.path in names}),
        gone=Names.of(entry.path for entry in earlier if entry.path not in read_paths),
        returned=Names.of(file.path for before, file in known if not before.in_corpus),
        renamed=Names.of(
            f"{before.path} -> {file.path}" for before, file in known if before.path != file.path
        ),
        duplicate=Names.of(
            f"{copy.path} (named again)" if copy.path == copy.of else f"{copy.path} = {copy.of}"
            for copy in corpus.duplicates
        ),
        unreadable=Names.of(f"{path} ({why})" for path, why in corpus.unavailable.items()),
        keep_gone=keep_gone,
        left_out=dict(corpus.left_out.others),
        hidden_left_out=dict(corpus.left_out.hidden),
    )


def absent_videos(corpus: Corpus, latest: Mapping[str, PlannedRows]) -> frozenset[str]:
    """Ids of the planned videos that are no longer in the corpus."""
    return frozenset(latest.keys() - {file.video_id for file in corpus.files})


def newly_gone(corpus: Corpus, latest: Mapping[str, PlannedRows]) -> list[str]:
    """Paths of the videos that were in the corpus before and that no file has replaced."""
    read_paths = _read_paths(corpus) | corpus.unavailable.keys()
    absent = (latest[video_id] for video_id in absent_videos(corpus, latest))
    return [entry.path for entry in absent if entry.in_corpus and entry.path not in read_paths]


def with_current_files(
    corpus: Corpus, latest: Mapping[str, PlannedRows], kept: Collection[str]
) -> dict[str, PlannedRows]:
    """The planned videos with their current files.

    ``in_corpus`` becomes true for the videos in the corpus and for those with ``kept`` ids.
    """
    files = {file.video_id: file for file in corpus.files}
    updated = {}
    for video_id, entry in latest.items():
        if (file := files.get(video_id)) is None:
            updated[video_id] = replace(entry, in_corpus=video_id in kept)
        else:
            updated[video_id] = entry.with_file(file, in_corpus=True)
    return updated


def _read_paths(corpus: Corpus) -> set[str]:
    """All paths under which the corpus holds a video."""
    return {file.path for file in corpus.files} | {copy.path for copy in corpus.duplicates}
