"""Chooses one copy for every video from the files that were compared with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from distinit.pipeline.matching.cache_hashes import CacheVideo
from distinit.pipeline.matching.matcher import OTHER_NAME, Candidate, name_key
from distinit.schemas.corpus import VideoFile
from distinit.schemas.matching import MatchedVideo, MatchLimits

__all__ = ["choose_copies", "exact_copy"]

_EQUAL_SHARE = 0.02  # copies whose shares differ by less match equally
_BY_ANOTHER_NAME = "a file of another name must show motion to be told apart"


def exact_copy(video: CacheVideo, file: VideoFile) -> MatchedVideo:
    """The row of a video of which the receiver has the same bytes."""
    return _row(
        video,
        kind="exact",
        usable=True,
        copy_path=file.path,
        copy_digest=file.digest,
        copy_frame_count=video.frame_count,
        agreeing_share=1.0,
    )


def choose_copies(
    videos: Sequence[CacheVideo],
    found: Mapping[int, Sequence[Candidate]],
    undecodable: Mapping[str, str],
    limits: MatchLimits,
) -> list[MatchedVideo]:
    """The row of each video.

    Args:
        videos: Videos without an exact copy.
        found: Position of a video -> the files that were compared with it.
        undecodable: Name of a video (``name_key``) -> why the file of that name was not decoded.
        limits: Whether copies are used whose shift cannot be decided.

    A file that fits several videos equally, or a video that several files fit equally, is
    ambiguous, unless the name decides.
    """
    best = {
        position: sorted(candidates, key=lambda c: _order(c, limits))
        for position, candidates in found.items()
    }
    claims: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for position, candidates in best.items():
        first = candidates[0]
        if _is_usable(first, limits):
            claims[first.file.digest].append((first.name_rank, position))
    return [
        _choose(video, best.get(position, ()), claims, position, limits)
        if best.get(position)
        else _row(video, reason=undecodable.get(name_key(video.path), "no file shows it"))
        for position, video in enumerate(videos)
    ]


def _order(candidate: Candidate, limits: MatchLimits) -> tuple[bool, bool, int, float, str]:
    """Usable copies first, then other copies; among equals by name, then by agreement."""
    same = candidate.comparison.kind != "missing"
    return (
        not _is_usable(candidate, limits),
        not same,
        candidate.name_rank,
        -candidate.comparison.agreeing_share,
        candidate.file.path,
    )


def _is_usable(candidate: Candidate, limits: MatchLimits) -> bool:
    if not candidate.comparison.fits:
        return False
    if candidate.comparison.kind == "undecidable":
        return limits.static == "use" and candidate.name_rank < OTHER_NAME
    return True


def _choose(
    video: CacheVideo,
    candidates: Sequence[Candidate],
    claims: Mapping[str, Sequence[tuple[int, int]]],
    position: int,
    limits: MatchLimits,
) -> MatchedVideo:
    first = candidates[0]
    if not _is_usable(first, limits):
        return _candidate_row(video, first, usable=False)
    equal = [
        other
        for other in candidates[1:]
        if _is_usable(other, limits)
        and other.name_rank == first.name_rank
        and first.comparison.agreeing_share - other.comparison.agreeing_share < _EQUAL_SHARE
    ]
    if equal:
        reason = f"{first.file.path} and {equal[0].file.path} fit equally: keep one of them"
        return _ambiguous(video, first, reason)
    claimed = sorted(claims[first.file.digest])
    others = [rank for rank, other in claimed if other != position]
    if others and min(others) <= first.name_rank:
        reason = f"{first.file.path} fits {len(claimed)} videos of the cache"
        return _ambiguous(video, first, reason)
    return _candidate_row(video, first, usable=True)


def _candidate_row(video: CacheVideo, candidate: Candidate, *, usable: bool) -> MatchedVideo:
    found = candidate.comparison
    reason = found.reason
    if found.kind == "undecidable" and found.fits and candidate.name_rank == OTHER_NAME:
        reason = f"{reason}; {_BY_ANOTHER_NAME}"
    return _row(
        video,
        kind=found.kind,
        usable=usable,
        copy_path=candidate.file.path,
        copy_digest=candidate.file.digest,
        copy_frame_count=found.copy_frame_count,
        shift_frames=found.shift_frames,
        agreeing_share=found.agreeing_share,
        reason=f"{candidate.file.path}: {reason}" if reason else "",
    )


def _ambiguous(video: CacheVideo, candidate: Candidate, reason: str) -> MatchedVideo:
    row = _candidate_row(video, candidate, usable=False)
    return row.model_copy(update={"kind": "ambiguous", "reason": reason})


def _row(video: CacheVideo, **values: object) -> MatchedVideo:
    """The row of a video; without further values it is missing."""
    known = {
        "video_id": video.video_id,
        "path": video.path,
        "digest": video.digest,
        "frame_count": video.frame_count,
        "kind": "missing",
        "usable": False,
    }
    return MatchedVideo.model_validate(known | values)
