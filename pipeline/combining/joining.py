"""Joins the videos of several sources: one entry per content, never an average of two."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from distinit.pipeline.combining.blueprint import DerivedVideo, Origin
from distinit.pipeline.combining.source import Source

__all__ = ["Joined", "candidates_by_digest", "join"]

type TeacherIds = Mapping[str, Sequence[str | None]]
"""Teacher of the result -> its id in each source; None: the source does not have it."""

_BEST_FIRST = ("ok", "failed", "gone")


@dataclass
class Joined:
    """The videos of a derived cache, still with the ids of their sources.

    ``recovered``: paths of videos that failed in one source and are taken from another.
    ``lacking``: teacher -> paths of videos that no source has targets for.
    """

    videos: list[DerivedVideo] = field(default_factory=list)
    recovered: list[str] = field(default_factory=list)
    lacking: dict[str, list[str]] = field(default_factory=dict)


def candidates_by_digest(sources: Sequence[Source]) -> dict[str, list[Origin]]:
    """Content digest -> the video in each source that has it, in the order of the sources."""
    found: dict[str, list[Origin]] = {}
    for number, source in enumerate(sources):
        for digest, video_id in source.id_of_digest.items():
            found.setdefault(digest, []).append(Origin(number, video_id))
    return found


def join(
    sources: Sequence[Source],
    teacher_ids: TeacherIds,
    chosen: Mapping[str, Sequence[Origin]],
    unlike: Mapping[str, Collection[int]] | None = None,
) -> Joined:
    """One video per digest of ``chosen``, from the first source that decoded it.

    ``unlike``: digest -> sources that decoded other frames of it than the first source. Nothing
    is taken from them.
    """
    joined = Joined()
    for digest in sorted(chosen):
        out = (unlike or {}).get(digest, ())
        origins = [origin for origin in chosen[digest] if origin.source not in out]
        _join_video(joined, sources, teacher_ids, origins)
    return joined


def _join_video(
    joined: Joined, sources: Sequence[Source], teacher_ids: TeacherIds, origins: Sequence[Origin]
) -> None:
    statuses = {o: sources[o.source].decoded[o.video_id].status for o in origins}
    status = next(s for s in _BEST_FIRST if s in statuses.values())
    best = [origin for origin in origins if statuses[origin] == status]
    origin = best[0]
    entries = {o: sources[o.source].entries[o.video_id] for o in origins}
    in_corpus = any(entries[o].in_corpus for o in best)
    path = entries[origin].path
    targets: dict[str, Origin | None] = {}
    unanswered: set[str] = set()
    refused: dict[str, str] = {}
    for name, ids in teacher_ids.items() if status == "ok" else ():
        targets[name] = next((o for o in best if _answers(sources, ids, o)), None)
        if targets[name] is not None:
            continue
        reason = next(_refusals(sources, ids, best), None)
        if reason is not None:
            refused[name] = reason
        elif not in_corpus and any(_unanswered(sources, ids, o) for o in best):
            unanswered.add(name)
        else:
            joined.lacking.setdefault(name, []).append(path)
    joined.videos.append(
        DerivedVideo(
            video_id=origin.video_id,
            entry=entries[origin],
            in_corpus=in_corpus,
            outcome=sources[origin.source].decoded[origin.video_id],
            origin=origin,
            targets=targets,
            unanswered=frozenset(unanswered),
            refused=refused,
        )
    )
    refusals = (r for ids in teacher_ids.values() for r in _refusals(sources, ids, best))
    lost = "failed" in statuses.values() or any(True for _ in refusals)
    if status == "ok" and not refused and lost:
        joined.recovered.append(path)


def _answers(sources: Sequence[Source], ids: Sequence[str | None], origin: Origin) -> bool:
    there = ids[origin.source]
    return there is not None and sources[origin.source].answers(there, origin.video_id)


def _unanswered(sources: Sequence[Source], ids: Sequence[str | None], origin: Origin) -> bool:
    there = ids[origin.source]
    return there is not None and origin.video_id in sources[origin.source].unanswered[there]


def _refusals(
    sources: Sequence[Source], ids: Sequence[str | None], origins: Sequence[Origin]
) -> Iterator[str]:
    for origin in origins:
        there = ids[origin.source]
        if there is not None:
            refused = sources[origin.source].refused[there]
            if origin.video_id in refused:
                yield refused[origin.video_id]
